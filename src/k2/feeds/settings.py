"""Settings of the feeds: the importer, the simulated market, replays."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FeedSettings(BaseModel):
    """Limits on what a feed holds, sends at once and waits for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    import_block_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, le=2**30, description="Bytes of a file that an import holds at a time"
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
