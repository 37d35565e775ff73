"""Settings of the ingest worker: how much it holds, how often it commits, how long it waits."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from k2.ingestion.backfill.settings import BackfillSettings
from k2.ingestion.sequences.settings import SequenceSettings
from k2.ingestion.watching.settings import MuteSettings


class DeduplicationSettings(BaseModel):
    """What the ingest worker remembers, of each table, to find records that it has stored before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        default=True,
        description="Drop records that were stored within the last 24 h of log time; "
        "one value for the worker and the API",
    )
    intervals_max: int = Field(
        default=10_000,
        ge=2,
        description="Intervals of sequences remembered per stream; past it the older half is held as one, which costs "
        "looks at the table and nothing else",
    )
    streams_max: int = Field(
        default=200_000, gt=0, description="Numbered streams remembered per partition; past it the table is asked"
    )
    ids_capacity: int = Field(
        default=20_000_000, ge=5, description="Trade ids that the filters of a table hold; 2 bytes each, as they fill"
    )
    ids_error_rate: float = Field(
        default=0.001, gt=0, lt=1, description="Share of new trade ids for which the table is asked in vain"
    )
    rebuild_rows_max: int = Field(
        default=20_000_000,
        ge=0,
        description="Rows of the last day read back when a partition is taken over; where there are more, the table is "
        "asked about each record for a day",
    )
    conflict_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="How far apart the event times of two records of one identity and other content may lie, for "
        "their conflict to be seen",
    )
    conflict_files_max: int = Field(
        default=50,
        ge=0,
        description="Data files opened in search of a conflict; where it takes more, none is sought",
    )


class IngestionSettings(BaseModel):
    """Limits and pauses of one ingest worker; every buffer and every wait has its bound here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group_id: str = Field(default="k2-ingest", min_length=1, description="Consumer group that the workers share")
    member_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of this worker in the group, its own and stable: started again, it has its partitions back "
        "at once instead of after the session timeout; unset, each start is a new member",
    )
    commit_interval_seconds: float = Field(
        default=5.0, gt=0, description="Longest time that a record waits for its commit"
    )
    first_commit_seconds: float = Field(
        default=0.2,
        gt=0,
        description="The same for a table's first commit after the worker's start: its records waited for that already",
    )
    commit_rows_max: int = Field(default=250_000, gt=0, description="Records of one table that start a commit at once")
    buffer_bytes_max: int = Field(
        default=16 * 2**20,
        gt=0,
        description="Bytes consumed and not yet decoded, per table; above it the table's partitions pause",
    )
    pending_bytes_max: int = Field(
        default=256 * 2**20,
        gt=0,
        description="Bytes decoded and not yet committed, per table, that start a commit at once",
    )
    poll_messages_max: int = Field(default=10_000, gt=0, description="Messages taken from Kafka by one poll")
    poll_timeout_seconds: float = Field(default=0.1, gt=0, description="Longest wait of one poll")
    decode_messages_max: int = Field(default=50_000, gt=0, description="Messages of one partition decoded as one block")
    revoke_seconds: float = Field(
        default=10.0, gt=0, description="Longest time to commit what is pending when partitions are taken away"
    )
    shutdown_seconds: float = Field(
        default=15.0, gt=0, description="Longest time of the last commit when the worker is stopped"
    )
    retry_pause_seconds: float = Field(
        default=0.5, gt=0, description="First pause after a dependency failed; doubles each time"
    )
    retry_pause_seconds_max: float = Field(default=15.0, gt=0, description="Longest pause between two tries")
    alert_after_failures: int = Field(
        default=3, gt=0, description="Failed commits in a row after which the worker reports that it is not ready"
    )
    identity_check_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Pause before a topic that was refused, or could not be checked, is checked again",
    )
    log_end_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long a log may seem shorter than the seam (a broker that recovers) before it is refused",
    )
    unknown_schemas_ratio_max: float = Field(
        default=0.05, ge=0, le=1, description="Share of a block's records with unknown schema ids above which it waits"
    )
    dead_letter_flush_seconds: float = Field(
        default=10.0, gt=0, description="Longest wait until the dead-letter topic has acknowledged"
    )
    duplicate_window_hours: float = Field(
        default=24.0,
        ge=0,
        description="A dead letter is replayed only once its partition has come further than this in log time; less "
        "than the 24 h within which a record of the same identity is a duplicate may store one twice",
    )
    kills_max: int = Field(
        default=3,
        ge=2,
        description="Times that decoding the same message may end the process; then it becomes a dead letter unread",
    )
    plan_seconds_max: float = Field(
        default=600.0, gt=0, description="Longest time to count the records between two offsets for `k2 offsets plan`"
    )
    replay_records_max: int = Field(default=1_000, gt=0, description="Dead letters decoded and committed at once")
    pause_after_seconds: float = Field(
        default=1.0, ge=0, description="How long polling waits for room in a full buffer before the partitions pause"
    )
    lag_interval_seconds: float = Field(
        default=1.0, gt=0, description="Pause between two measurements of the lag; levels of degradation follow it"
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address of the worker's /metrics, /livez and /readyz"
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of the worker's /metrics, /livez and /readyz; 0 picks a free one"
    )
    niceness: int = Field(
        default=5,
        ge=0,
        le=10,
        description="How far a worker's process steps back behind others on its machine (nice): questions are answered "
        "between its bursts, and what waits is in the log already; 0 for a machine of its own",
    )
    silent_seconds_max: float = Field(
        default=180.0, gt=0, description="Silence of one of the worker's threads above which /livez fails"
    )
    deduplication: DeduplicationSettings = Field(
        default_factory=DeduplicationSettings, description="Records that were stored before"
    )
    backfill: BackfillSettings = Field(
        default_factory=BackfillSettings, description="Writing what overload has deferred"
    )
    mutes: MuteSettings = Field(default_factory=MuteSettings, description="Symbols and feeds that fall silent")
    line_window_seconds: float = Field(
        default=10.0, gt=0, description="Log time that the lines of a venue have to bring a number; then it is lost"
    )
    line_numbers_max: int = Field(
        default=200_000, gt=0, description="Numbers of one partition held to compare lines; past it the oldest are due"
    )
    sequences: SequenceSettings = Field(default_factory=SequenceSettings, description="Gaps in the venues' numbers")
    memory_trim_seconds: float = Field(
        default=30.0, gt=0, description="Pause between two returns of freed memory to the system"
    )
