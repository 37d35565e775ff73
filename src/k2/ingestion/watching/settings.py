"""Settings of the mute watch: how unlikely a silence must be, and what is remembered of each stream."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from k2.common.units import NS_PER_SECOND
from k2.ingestion.watching.rhythm import RhythmRules


class MuteSettings(BaseModel):
    """When a symbol, or a whole partition, counts as silent. Times are log time in which the venue is open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Tell of symbols and feeds that fall silent")
    chance: float = Field(
        default=1e-9, gt=0, lt=1, description="Chance of a pause to be longer than the limit although nothing is wrong"
    )
    gaps_min: int = Field(default=200, ge=50, description="Pauses after which a stream's rhythm counts as known")
    gaps_memory: int = Field(default=5_000, ge=100, description="Pauses after which half of them are forgotten")
    silent_seconds_min: float = Field(default=2.0, gt=0, description="Silence below which nobody is told")
    live_seconds_max: float = Field(
        default=60.0,
        gt=0,
        description="Time from a record's receipt to the log beyond which it is history and has no rhythm",
    )
    streams_max: int = Field(
        default=20_000, gt=0, description="Streams watched; about 650 bytes each. Those met later are not watched"
    )

    @property
    def rules(self) -> RhythmRules:
        """Return the same for the rhythms."""
        return RhythmRules(
            chance=self.chance,
            gaps_min=self.gaps_min,
            gaps_memory=self.gaps_memory,
            silence_ns_min=int(self.silent_seconds_min * NS_PER_SECOND),
        )
