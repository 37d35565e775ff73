"""`k2 serve`: the REST API of the platform at hand."""

from __future__ import annotations

import sys
from typing import Final

import typer

from k2.cli.options import DataDirOption

SWITCH_SECONDS: Final = 0.0005
"""How long the tail's thread may keep a question from going on; Python's own 5 ms would be felt in every answer."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="serve")(serve)


def serve(data_dir: DataDirOption = None) -> None:
    """Answer questions over HTTP until stopped."""
    from functools import partial

    from k2 import bootstrap
    from k2.api import server
    from k2.api.app import create_app
    from k2.api.keys import ApiKey
    from k2.api.readiness import reasons_not_ready
    from k2.bootstrap.announcing import level_board
    from k2.common.logging import get_logger
    from k2.settings import load_settings

    sys.setswitchinterval(SWITCH_SECONDS)
    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="api")
    log = get_logger(__name__)
    key = ApiKey.from_file(settings.api.key_file or settings.data_dir / "api-key")
    with server.listen(settings.api.host, settings.api.port) as listener:
        side = bootstrap.query_side(settings)
        admin = bootstrap.log_admin(settings)
        board = level_board(settings, admin)
        clock = bootstrap.system_clock()
        unready = partial(reasons_not_ready, side.tail, side.warm_start)
        app = create_app(side.engine, key=key, settings=settings.api, clock=clock, unready=unready, board=board)
        side.start()
        side.warm_start.start()
        board.start()
        log.info("api_started", host=settings.api.host, port=settings.api.port)
        try:
            server.serve(app, listener, settings.api)
        finally:
            board.close()
            admin.close()
            side.stop()
            log.info("api_stopped")
