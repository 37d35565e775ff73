"""Settings of the feeds: the importer, the simulated market, replays."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MEBIBYTE: Final = 2**20


class SpoolSettings(BaseModel):
    """What a feed that cannot be paused keeps on disk until the log has taken it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes_max: int = Field(
        default=1024 * _MEBIBYTE, ge=4096, description="Bytes that a spool holds at most; past it, messages are refused"
    )
    segment_bytes: int = Field(
        default=16 * _MEBIBYTE, ge=1024, description="Bytes of one file of a spool; it is deleted as a whole"
    )
    fsync: Literal["always", "interval", "never"] = Field(
        default="interval",
        description="When a spool is written through to the disk: after each block, at intervals, or never. The end of "
        "the process loses nothing either way, a loss of power what was not written through",
    )
    fsync_seconds: float = Field(default=1.0, gt=0, le=3600, description="The interval of `fsync`")
    unacknowledged_max: int = Field(
        default=10_000, gt=0, description="Messages of a spool that are on their way to the log at a time"
    )
    delivery_seconds: float = Field(
        default=86_400.0, gt=0, le=86_400, description="How long the log may be away before a spool begins to send anew"
    )
    retry_pause_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="Pause before a spool tries the log again after a failure"
    )
    resume_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="How long the log may take to say what it holds of a spool"
    )
    drain_seconds: float = Field(
        default=120.0, ge=0, le=86_400, description="How long the end of a feed waits for its spool to be empty"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bytes_max < 2 * self.segment_bytes:
            raise ValueError(
                f"expected bytes_max of at least two segments, found {self.bytes_max} and segments of "
                f"{self.segment_bytes}: raise the first or lower the second"
            )
        return self


class FeedSettings(BaseModel):
    """Limits on what a feed holds, sends at once and waits for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    import_block_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, le=2**30, description="Bytes of a file that an import holds at a time"
    )
    import_rows_max: int = Field(
        default=100_000, ge=1, le=10_000_000, description="Rows of a Parquet file that an import holds at a time"
    )
    import_sessions_max: int = Field(
        default=2_000_000, ge=1, description="Days of symbols, all together, that a file with a mapping may have"
    )
    bad_lines_shown_max: int = Field(
        default=5, ge=1, le=1000, description="Bad lines that one error text names; it counts the others"
    )
    bad_lines_ratio_max: float = Field(
        default=0.5, ge=0, le=1, description="Bad lines, of all, up to which `--bad-lines dead-letter` takes a file"
    )
    flush_timeout_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="How long the end of a feed waits until the log has everything"
    )
    resume_timeout_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="How long an import waits for the log to tell what it holds already"
    )
    catch_up_seconds_max: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="Delay that the simulated market or a replay makes up for; beyond it, it slips",
    )
    heartbeat_seconds: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="How often `k2 simulate` marks how far each symbol has come; 0 for at its end only",
    )
    replay_records_max: int = Field(
        default=100_000, ge=1, le=10_000_000, description="Records of a recording that a replay holds at a time"
    )
    fault_streams_max: int = Field(
        default=200_000, ge=1, description="Numbered streams that faults can be injected into, per data type"
    )
    hold_look_seconds: float = Field(
        default=0.5, gt=0, le=60, description="How often a feed that is held back looks whether it may go on"
    )
    hold_told_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="How often a feed that is held back says that it still is"
    )
    spool: SpoolSettings = Field(default_factory=SpoolSettings, description="Spools of feeds that cannot be paused")
