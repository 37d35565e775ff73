"""All that a worker needs to do something about overload, put together by whoever builds the worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.ingestion.overload.ladder import NoLadder
from k2.ingestion.overload.spilling import NoSpill

if TYPE_CHECKING:
    from k2.ingestion.overload.ladder import Ladder
    from k2.ingestion.overload.spilling import Spill
    from k2.schemas.tier_maps import TierMap


@dataclass(frozen=True, slots=True)
class OverloadParts:
    """By itself, nothing is done. `tiers` say what is deferred, `spill` where decoded records go."""

    ladder: Ladder = field(default_factory=NoLadder)
    tiers: TierMap | None = None
    spill: Spill | NoSpill = field(default_factory=NoSpill)
    keys_max: int = 100_000
