"""Settings of sequence tracking: windows, limits, and from how many missing numbers on somebody is told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k2.ingestion.sequences.rules import SequenceRules

_MICROSECONDS = 1_000_000


class SequenceSettings(BaseModel):
    """How the numbers of streams are watched. Times are log time, so that a replay decides the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Watch the venues' sequence numbers and keep market.gaps")
    reorder_messages: int = Field(
        default=100, ge=0, description="Messages of a stream that may come before a missing one without a gap"
    )
    reorder_seconds: float = Field(
        default=10.0, ge=0, description="Log time in which a missing message may come without a gap"
    )
    lost_seconds: float = Field(default=86_400.0, gt=0, description="Log time after which a gap is declared lost")
    memory_seconds: float = Field(
        default=7 * 86_400.0,
        gt=0,
        description="Log time of silence after which a stream begins anew, and after which a gap is no longer filled",
    )
    memory_offsets: int = Field(
        default=1_000_000,
        gt=0,
        description="Offsets of its partition without a message after which a stream begins anew, and a gap is no "
        "longer filled; twice as many rows are read when a memory is rebuilt from the table",
    )
    holes_max: int = Field(default=1_000, gt=0, description="Missing ranges remembered of one stream")
    streams_max: int = Field(default=200_000, gt=0, description="Streams remembered of one partition")
    reset_number_max: int = Field(
        default=10, ge=0, description="Highest number with which a numbering can begin anew within a trading date"
    )
    reset_distance_min: int = Field(
        default=100, gt=0, description="How far back such a number must lie, so that it is no late message"
    )
    quiet_look_seconds: float = Field(
        default=5.0, gt=0, description="How often partitions without new records are looked at for a missing end"
    )
    markers_max: int = Field(default=100_000, gt=1, description="Markers remembered of one partition; older ones go")
    status_silent_seconds: float = Field(
        default=10.0, gt=0, description="How long the status topics may be silent before their end is reached"
    )
    log_missing_min: int = Field(default=10, gt=0, description="Missing numbers from which on a gap is logged")
    alert_missing_min: int = Field(default=100, gt=0, description="Missing numbers from which on a gap is an alert")
    halt_missing_min: int = Field(default=1_000, gt=0, description="Missing numbers from which on a gap may halt")
    doubt_messages: int = Field(
        default=1_000,
        gt=0,
        description="Messages of a topic after which it is judged whether too many numbers miss",
    )
    doubt_gaps_ratio: float = Field(
        default=0.2,
        gt=0,
        description="Gaps a message from which on a topic's numbers are doubted: its sequence_scope may be wrong",
    )
    on_halt: Literal["alert", "defer", "stop"] = Field(
        default="alert",
        description="What a gap of halt_missing_min does: alert; defer its stream from the message on that showed it, "
        "until `k2 gaps release` or halt_seconds; or stop the table until it is looked at",
    )
    halt_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Time after which a deferred stream goes on by itself; 0: not before it is released",
    )
    halt_symbols_max: int = Field(
        default=500,
        gt=0,
        description="Symbols of one partition deferred for their gaps; streams beyond that are told, and go on",
    )

    @model_validator(mode="after")
    def _ordered(self) -> SequenceSettings:
        if self.lost_seconds > self.memory_seconds:
            raise ValueError("lost_seconds must not exceed memory_seconds")
        if not self.log_missing_min <= self.alert_missing_min <= self.halt_missing_min:
            raise ValueError("log_missing_min <= alert_missing_min <= halt_missing_min")
        if self.on_halt == "defer" and self.halt_missing_min <= self.reorder_messages:
            raise ValueError("on_halt=defer needs halt_missing_min above reorder_messages: what is late is no gap")
        return self

    @property
    def rules(self) -> SequenceRules:
        """What the rules need of it."""
        return SequenceRules(
            reorder_messages=self.reorder_messages,
            reorder_us=round(self.reorder_seconds * _MICROSECONDS),
            lost_us=round(self.lost_seconds * _MICROSECONDS),
            memory_us=round(self.memory_seconds * _MICROSECONDS),
            memory_offsets=self.memory_offsets,
            holes_max=self.holes_max,
            reset_number_max=self.reset_number_max,
            reset_distance_min=self.reset_distance_min,
        )
