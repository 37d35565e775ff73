"""A real S3 store on loopback (s3proxy on local files), with signed requests and buckets made by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from pyarrow.fs import S3FileSystem

from k2.local.ports import HOST
from k2.testing.services.java_server import java_server
from k2.testing.services.server import accepts, free_port, install

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACCESS_KEY: Final = "k2-tests"
SECRET_KEY: Final = "open-sesame"  # noqa: S105  # of a server that lives as long as a test
REGION: Final = "us-east-1"


class S3Service:
    """One store; its objects are files below `directory`."""

    def __init__(self, directory: Path, progress: Callable[[int, int], None]) -> None:
        port = free_port()
        objects = directory / "objects"
        objects.mkdir()
        properties = directory / "s3proxy.properties"
        values = {
            "s3proxy.endpoint": f"http://{HOST}:{port}",
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": ACCESS_KEY,
            "s3proxy.credential": SECRET_KEY,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(objects),
        }
        properties.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
        home = install("s3proxy", progress)
        self._server = java_server(
            "s3proxy", home, directory, "org.gaul.s3proxy.Main", ("--properties", str(properties)), port
        )
        self.start()

    @property
    def port(self) -> int:
        """Return the port on loopback."""
        return self._server.port

    def make_bucket(self, name: str) -> None:
        """Make a bucket unless it is there."""
        files = S3FileSystem(
            endpoint_override=f"http://{HOST}:{self.port}",
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region=REGION,
            allow_bucket_creation=True,
        )
        files.create_dir(name)

    def settings(self, warehouse: str, *, port: int | None = None) -> dict[str, str]:
        """Return the catalog settings of a warehouse in it; `port` is that of a proxy in between."""
        return {
            "warehouse": warehouse,
            "s3_endpoint": f"http://{HOST}:{port or self.port}",
            "s3_region": REGION,
            "s3_access_key_id": ACCESS_KEY,
            "s3_secret_access_key": SECRET_KEY,
        }

    def start(self) -> None:
        """Start it after a stop, with the objects that it had."""
        self._server.start(lambda: accepts(self.port))

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
