"""Settings of the backfill: how much it takes at once, how much of the time it may use, when it has to hurry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BackfillSettings(BaseModel):
    """How the records that overload deferred are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether this worker writes what overload deferred")
    time_ratio: float = Field(
        default=0.25, gt=0, le=1, description="Most of the writing thread's time that a backfill may take"
    )
    urgent_time_ratio: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="The same where the retention of the log comes near; the backfill then runs at every level",
    )
    look_seconds: float = Field(default=1.0, gt=0, description="Pause between two looks for deferred records")
    records_max: int = Field(default=50_000, gt=0, description="Deferred records of one partition written at once")
    bytes_max: int = Field(default=32 * 2**20, gt=0, description="Bytes of deferred records written at once")
    poll_messages_max: int = Field(default=10_000, gt=0, description="Messages of a deferred range taken by one poll")
    poll_seconds: float = Field(default=0.02, ge=0, description="Longest wait of one poll of a deferred range")
    last_offsets_max: int = Field(
        default=500_000,
        gt=0,
        description="Offsets of a partition's deferred list up to which ingestion of its table waits while all of it "
        "is written: that ends the deferral of symbols that never pause",
    )
    last_seconds_max: float = Field(
        default=5.0, gt=0, description="Longest time that ingestion of a table waits for that"
    )
    last_flush_seconds_max: float = Field(
        default=30.0,
        gt=0,
        description="Longest time that what ingestion of the table has taken in may need to be committed before that: "
        "it begins with the time above and doubles as long as a slow sink needs more; it ends at once where partitions "
        "are taken away",
    )
    retention_hours_left_min: float = Field(
        default=12.0, ge=0, description="Hours until the log deletes a deferred record below which it is urgent"
    )
    retention_share_left_min: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the log that lies before a deferred record below which it is urgent, once the log "
        "deletes records",
    )
