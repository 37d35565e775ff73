"""Structured logs: one event a line, readable on a terminal, JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_FIRST: Final = ("timestamp", "level", "event", "component")
"""What a person looks for when a log scrolls by."""


def configure(*, component: str, level: str = "INFO", json: bool | None = None) -> None:
    """Send every log event of this process to standard error, tagged with `component`."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _in_order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is then: it may have been replaced
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(component=component)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose events carry `logger_name=name`."""
    logger: FilteringBoundLogger = structlog.get_logger(logger_name=name)
    return logger


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the same few keys first in every line; the others follow as they were given."""
    return {name: event[name] for name in _FIRST if name in event} | dict(event)
