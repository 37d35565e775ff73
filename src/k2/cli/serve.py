"""`k2 serve`: the REST API of the platform at hand."""

from __future__ import annotations

import typer

from k2.cli.options import DataDirOption


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="serve")(serve)


def serve(data_dir: DataDirOption = None) -> None:
    """Answer questions over HTTP until stopped."""
    import uvicorn

    from k2 import bootstrap
    from k2.api.app import create_app
    from k2.api.keys import ApiKey
    from k2.common.logging import get_logger
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="api")
    key = ApiKey.from_file(settings.api.key_file or settings.data_dir / "api-key")
    side = bootstrap.query_side(settings)

    def unready() -> list[str]:
        trouble = (side.tail.trouble, side.tail.watch_trouble)
        return [str(error) for error in trouble if error is not None]

    app = create_app(side.engine, key=key, settings=settings.api, clock=bootstrap.system_clock(), unready=unready)
    config = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        limit_concurrency=settings.api.connections_max,
        timeout_keep_alive=settings.api.keep_alive_seconds,
        timeout_graceful_shutdown=settings.api.shutdown_seconds,
    )
    side.start()
    get_logger(__name__).info("api_started", host=settings.api.host, port=settings.api.port)
    try:
        uvicorn.Server(config).run()
    finally:
        side.stop()
