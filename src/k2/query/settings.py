"""Settings of hybrid answers: how much the tail holds, how long a question may take, what DuckDB may use."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class QuerySettings(BaseModel):
    """Limits of the query side; each has its unit at the end of its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gap_events_max: int = Field(
        default=1_000_000,
        ge=0,
        description="Events of gaps held in memory; where there are more, each answer reads its own",
    )
    gaps_listed_max: int = Field(default=100, ge=0, description="Gaps named in one certificate, the newest first")
    tail_bytes_max: int = Field(
        default=256 * 1024 * 1024, gt=0, description="Most memory that the tail's rows may take, bytes"
    )
    tail_poll_seconds: float = Field(
        default=0.02, gt=0, le=5, description="How long one poll of the log waits, seconds"
    )
    tail_round_seconds: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Least time between two rounds of the tail, so that it decodes many at once",
    )
    tail_poll_records_max: int = Field(default=20_000, gt=0, description="Most records that one poll takes")
    tail_chunk_rows: int = Field(default=65_536, gt=0, description="Rows up to which neighbouring chunks are joined")
    tail_refresh_seconds: float = Field(
        default=1.0, gt=0, description="How often the tail looks at the table's seam and at the topics, seconds"
    )
    tail_retry_seconds: float = Field(
        default=1.0, gt=0, description="Pause before the tail tries a log or a table again that was down, seconds"
    )
    catch_up_seconds_max: float = Field(
        default=2.0, ge=0, description="Longest wait of a question for the tail to reach the log's end, seconds"
    )
    lease_seconds_max: float = Field(
        default=60.0, gt=0, description="How long a question may hold the tail's rows against trimming, seconds"
    )
    on_demand_seconds_max: float = Field(
        default=20.0, gt=0, description="Longest read of the log for what the tail no longer holds, seconds"
    )
    on_demand_records_max: int = Field(
        default=20_000_000, gt=0, description="Most records of the log that one question may read on demand"
    )
    on_demand_bytes_max: int = Field(
        default=128 * 1024 * 1024, gt=0, description="Most bytes of matching records kept of one read on demand"
    )
    check_files: bool = Field(
        default=True,
        description="Check each local data file against its recorded checksum before its first use in a process",
    )
    checked_files_max: int = Field(
        default=200_000, gt=0, description="Most data files of which it is remembered that they were checked"
    )
    amendments_kept_max: int = Field(
        default=200_000,
        gt=0,
        description="Most amendments of data files that are kept in memory",
    )
    memory_limit_bytes: int = Field(default=512 * 1024 * 1024, gt=0, description="Memory that DuckDB may use, bytes")
    threads: int = Field(default=2, gt=0, le=256, description="Threads that DuckDB may use")
    narrow_bytes_max: int = Field(
        default=256 * 1024 * 1024,
        ge=0,
        description="Bytes of local data files up to which Polars reads a question that is no page; 0: never",
    )
    narrow_rows_max: int = Field(
        default=200_000, gt=0, description="Most rows that Polars reads so; where there are more, DuckDB reads them"
    )
    queries_at_once_max: int = Field(default=8, gt=0, description="Questions answered at the same time")
    queue_seconds_max: float = Field(
        default=2.0, ge=0, description="Longest wait of a question for its turn, seconds; then it is refused"
    )
    query_seconds_max: float = Field(default=30.0, gt=0, description="Longest run of one question, seconds")
    warm_start_seconds_max: float = Field(
        default=10.0,
        gt=0,
        description="How long `k2 serve` may be unready because it still asks the first questions itself, seconds",
    )
    window_minutes_max: float = Field(
        default=7 * 24 * 60, gt=0, description="Longest window counted back from now or the newest record, minutes"
    )
    sql_resident_bytes_max: int = Field(
        default=2 * 1024 * 1024 * 1024,
        gt=0,
        description="Most resident memory of a `k2 sql`, bytes; then it is ended. DuckDB's own limit does not see all",
    )
    rows_max: int = Field(default=5_000_000, gt=0, description="Most rows of one answer; a longer one needs a limit")
    export_rows_max: int = Field(
        default=1_000_000, gt=0, description="Rows that `k2 export` holds before it writes them into their files"
    )
    export_files_open_max: int = Field(
        default=250, gt=0, description="Files that `k2 export` writes at a time; a day that comes again gets one more"
    )
    bars_max: int = Field(default=200_000, gt=0, description="Most bars of one answer")
    bar_settle_seconds: float = Field(
        default=60.0,
        ge=0,
        description="How long after its end a bar is provisional, since late trades may come, seconds",
    )
    symbols_max: int = Field(default=100_000, gt=0, description="Most symbols that a list of symbols names")
    audit_window_offsets: int = Field(default=1_000_000, gt=0, description="Offsets that the audit compares at a time")
    audit_rows_at_once_max: int = Field(
        default=2_000_000, gt=0, description="Rows whose sources the audit compares at a time"
    )
    audit_seconds_max: float = Field(
        default=3600.0, gt=0, description="Longest audit of the tables against the log, seconds"
    )
