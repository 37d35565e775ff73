"""Iceberg's own REST catalog on loopback: its adapter and servlet over its JDBC catalog on SQLite and local files.

Iceberg's `RESTCatalogServer` makes the same objects but listens on all addresses, so they are put together here by
Jetty's XML configuration instead.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final, Self
from xml.sax.saxutils import escape

from k2.local.ports import HOST
from k2.testing.services.java_server import java_server
from k2.testing.services.server import accepts, free_port, install

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SERVER: Final = """<?xml version="1.0"?>
<!DOCTYPE Configure PUBLIC "-//Jetty//Configure//EN" "configure_10_0.dtd">
<Configure id="server" class="org.eclipse.jetty.server.Server">
  <Call name="addConnector"><Arg>
    <New class="org.eclipse.jetty.server.ServerConnector">
      <Arg name="server"><Ref refid="server"/></Arg>
      <Set name="host">{host}</Set>
      <Set name="port">{port}</Set>
    </New>
  </Arg></Call>
  <Set name="handler">
    <New class="org.eclipse.jetty.servlet.ServletContextHandler">
      <Set name="contextPath">/</Set>
      <Call name="addServlet">
        <Arg><New class="org.eclipse.jetty.servlet.ServletHolder"><Arg>
          <New class="org.apache.iceberg.rest.RESTCatalogServlet"><Arg>
            <New class="org.apache.iceberg.rest.RESTCatalogAdapter"><Arg>
              <Call class="org.apache.iceberg.CatalogUtil" name="buildIcebergCatalog">
                <Arg>k2</Arg>
                <Arg><Map>
                  <Entry><Item>catalog-impl</Item><Item>org.apache.iceberg.jdbc.JdbcCatalog</Item></Entry>
                  <Entry><Item>uri</Item><Item>jdbc:sqlite:{directory}/catalog.db</Item></Entry>
                  <Entry><Item>jdbc.schema-version</Item><Item>V1</Item></Entry>
                  <Entry><Item>clients</Item><Item>1</Item></Entry>
                  <Entry><Item>warehouse</Item><Item>{directory}/lake</Item></Entry>
                  <Entry><Item>io-impl</Item><Item>org.apache.iceberg.TestTables$LocalFileIO</Item></Entry>
                </Map></Arg>
                <Arg/>
              </Call>
            </Arg></New>
          </Arg></New>
        </Arg></New></Arg>
        <Arg>/*</Arg>
      </Call>
    </New>
  </Set>
</Configure>
"""


class RestCatalogService:
    """One catalog over files below `directory`. It has one set of tables: a test empties it when it is done."""

    def __init__(self, directory: Path, progress: Callable[[int, int], None]) -> None:
        self.lake = directory / "lake"
        self.lake.mkdir()
        port = free_port()
        server = directory / "server.xml"
        text = _SERVER.format(host=HOST, port=port, directory=escape(str(directory)))
        server.write_text(text, encoding="utf-8")
        home = install("rest-catalog", progress)
        main = "org.eclipse.jetty.xml.XmlConfiguration"
        self._server = java_server("rest-catalog", home, directory, main, (str(server),), port)
        self.start()

    @property
    def port(self) -> int:
        """Return the port on loopback."""
        return self._server.port

    def settings(self, *, port: int | None = None) -> dict[str, str]:
        """Return the catalog settings that lead here; `port` is that of a proxy in between."""
        return {"type": "rest", "uri": f"http://{HOST}:{port or self.port}", "warehouse": "k2"}

    def remove_files(self) -> None:
        """Remove the files of all tables; drop the tables first."""
        for path in self.lake.iterdir():
            shutil.rmtree(path)

    def start(self) -> None:
        """Start it after a stop, with the tables that it had."""
        self._server.start(lambda: accepts(self.port))

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
