"""The composition root of what the ingest worker does under overload."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from k2.common.announcing import Announcer, Drills
    from k2.common.clock import Clock
    from k2.ingestion.events import Observer
    from k2.ingestion.overload.parts import OverloadParts
    from k2.schemas.tier_maps import TierMap
    from k2.settings import Settings


def overload_parts(
    settings: Settings,
    clock: Clock,
    observer: Observer,
    *,
    announcer: Announcer | None = None,
    drills: Drills | None = None,
) -> OverloadParts:
    """Return the worker's ladder, tier map and place on disk."""
    from k2.common.memory_share import ProcessMemory, control_group_limit_bytes
    from k2.ingestion.overload.ladder import WorkerLadder
    from k2.ingestion.overload.parts import OverloadParts
    from k2.ingestion.overload.spilling import Spill

    own, name = settings.degradation, _worker_name(settings)
    memory = ProcessMemory(
        limit_bytes=own.memory_limit_bytes or control_group_limit_bytes(),
        interval_seconds=own.memory_interval_seconds,
        clock=clock,
    )
    ladder = WorkerLadder(
        own, clock=clock, memory=memory, worker=name, observer=observer, announcer=announcer, drills=drills
    )
    return OverloadParts(
        ladder,
        tiers=None if own.tiers_file is None else tier_map(own.tiers_file),
        spill=Spill(
            _spill_directory(settings.data_dir / "ingest" / "spill", name), bytes_max=own.spill_bytes_max, clock=clock
        ),
        keys_max=own.keys_max,
    )


def tier_map(path: Path) -> TierMap:
    """Read the file of a tier map; ConfigurationError if there is none, or it is none."""
    from k2.common.errors import ConfigurationError
    from k2.schemas.tier_maps import TierMap

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"expected a tier map in the file {path}, found none that can be read ({error}): mend "
            "K2_DEGRADATION__TIERS_FILE or unset it"
        ) from error
    return TierMap.from_json(text)


def _worker_name(settings: Settings) -> str:
    """Return the member's own name, else one that no other process of this machine has now."""
    import os
    import socket

    return settings.ingestion.member_id or f"{socket.gethostname()}.{os.getpid()}"


def _spill_directory(parent: Path, name: str) -> Path:
    """Return this worker's directory; those of processes that are gone are deleted."""
    import shutil
    from urllib.parse import quote

    import psutil

    for other in parent.glob("*") if parent.is_dir() else ():
        number = other.name.rpartition(".")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(other, ignore_errors=True)
    return parent / quote(name, safe="")
