"""Settings of the catalog, the commit, planning, expiry and the upkeep of the tables."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation at run time

from pydantic import BaseModel, ConfigDict, Field, SecretStr

_MEBIBYTE = 1024 * 1024


class CatalogSettings(BaseModel):
    """Where the Iceberg catalog and warehouse are, and the limits of what is done with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="k2", min_length=1, description="Name of the catalog")
    type: str = Field(
        default="sql", pattern="^(sql|rest)$", description="Kind of catalog: sql (SQLite, PostgreSQL) or rest"
    )
    uri: str = Field(
        default="sqlite:///.k2/catalog.db",
        min_length=1,
        repr=False,
        description="URI of the catalog; may hold a password",
    )
    warehouse: str = Field(
        default="file://.k2/warehouse",
        min_length=1,
        description="Where tables keep their files: file:///directory or s3://bucket/prefix; with a REST catalog, the "
        "name that it knows its warehouse by",
    )
    credential: SecretStr = Field(default=SecretStr(""), description="client_id:client_secret for a REST catalog")
    token: SecretStr = Field(default=SecretStr(""), description="Bearer token for a REST catalog")
    s3_endpoint: str = Field(
        default="", pattern="^(https?://.+)?$", description="URL of an S3 store; that of AWS if unset"
    )
    s3_region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket")
    s3_access_key_id: str = Field(default="", description="Access key of the S3 store")
    s3_secret_access_key: SecretStr = Field(default=SecretStr(""), description="Secret of the access key")
    s3_session_token: SecretStr = Field(default=SecretStr(""), description="Session token of a temporary access key")
    properties: dict[str, str] = Field(
        default_factory=dict, repr=False, description="More properties for PyIceberg, as a JSON object"
    )
    connect_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Longest wait for a connection to a REST catalog or S3 store"
    )
    request_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Longest silence of PostgreSQL, a REST catalog or an S3 store"
    )
    busy_timeout_seconds: float = Field(default=10.0, gt=0, description="Longest wait for a locked SQLite catalog")
    commit_attempts_max: int = Field(default=10, ge=1, description="Most attempts at one commit, conflicts included")
    commit_timeout_seconds: float = Field(default=60.0, gt=0, description="Longest time that one commit keeps trying")
    commit_pause_seconds: float = Field(
        default=0.02, ge=0, description="Pause after the first conflict; doubles each time"
    )
    commit_pause_max_seconds: float = Field(default=1.0, gt=0, description="Longest pause between two attempts")
    file_age_max_hours: float = Field(
        default=12.0, gt=0, description="Age at which a data file not yet committed is rewritten"
    )
    row_group_rows: int = Field(default=65_536, ge=1_024, description="Rows in one row group of a data file")
    manifests_merge_count: int = Field(default=20, ge=2, description="Manifests of like size that are merged into one")
    expire_every_commits: int = Field(default=50, ge=1, description="Commits between two expiries of snapshots")
    snapshots_kept_min: int = Field(default=10, ge=1, description="Newest snapshots that an expiry always keeps")
    snapshot_age_min_seconds: float = Field(
        default=60.0, ge=0, description="Age below which a snapshot is kept, for the readers that pinned it"
    )
    snapshots_kept_max: int = Field(
        default=30,
        ge=2,
        description="Most snapshots that an expiry leaves, whatever their age: commits slow down with them",
    )
    tags_max: int = Field(
        default=100, ge=1, description="Most snapshots of a table that tags keep: commits slow down with them"
    )
    planned_files_cached_max: int = Field(
        default=200_000, ge=1, description="Most entries of manifests that a planner keeps in memory"
    )


class UpkeepSettings(BaseModel):
    """What is merged, compacted and swept, how often, and in how much memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_seconds: float = Field(
        default=120.0, gt=0, description="Pause between two rounds of `k2 maintain --every`"
    )
    round_seconds_max: float = Field(
        default=3600.0, gt=0, description="Longest time of one round in the background; then it is ended"
    )
    alert_after_failures: int = Field(
        default=3, gt=0, description="Rounds with problems in a row after which upkeep reports that it is not ready"
    )
    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="Address of the upkeep's own /metrics")
    metrics_port: int = Field(default=9309, ge=0, le=65535, description="Port of the upkeep's own /metrics")
    scratch_dir: Path | None = Field(
        default=None, description="Where sorting keeps what does not fit in memory; `<data dir>/scratch` if unset"
    )
    file_bytes_min: int = Field(
        default=128 * _MEBIBYTE, ge=1, description="Size from which a data file is left as it is"
    )
    file_bytes_max: int = Field(
        default=256 * _MEBIBYTE, ge=2, description="Size that a compacted file is to stay below"
    )
    quiet_minutes: float = Field(
        default=30.0, ge=0, description="Minutes of log time without a row after which a day is compacted"
    )
    merge_files_min: int = Field(
        default=20, ge=2, description="Files of like size in a day still written to that are merged into one"
    )
    merge_tier_bytes: int = Field(
        default=_MEBIBYTE, ge=1, description="Size below which all files are of like size; each step up is 10 times it"
    )
    job_bytes_max: int = Field(
        default=4096 * _MEBIBYTE,
        ge=1,
        description="Most bytes of files that are sorted in one go and replaced together",
    )
    sort_rows_max: int = Field(
        default=131_072, ge=256, description="Rows that sorting holds in memory; more are sorted in pieces on disk"
    )
    sort_pieces_max: int = Field(default=32, ge=2, le=1_024, description="Most sorted pieces that are merged at a time")
    commit_attempts_max: int = Field(
        default=30, ge=1, description="Most attempts to put a replacement on top of a busy table's head"
    )
    sweep_interval_hours: float = Field(default=1.0, ge=0, description="Pause between two looks for orphaned files")
    orphan_hours: float = Field(
        default=24.0,
        gt=0,
        description="How long a file must stay orphaned, from when it was first seen so, before it is deleted",
    )
    orphans_marked_max: int = Field(
        default=200_000, ge=1, description="Most orphaned files that are remembered; others wait for a later look"
    )
