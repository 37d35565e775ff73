"""Settings of everything that talks to Kafka and to the schema registry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from k2.common.errors import ConfigurationError

MEBIBYTE = 1024 * 1024


class KafkaSettings(BaseModel):
    """Where the log and its registry are, and the limits on what one client holds, waits and sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        default="", description="Brokers to ask first, host:port, separated by commas; the running platform's if unset"
    )
    registry_url: str = Field(
        default="",
        pattern="^(https?://.*)?$",
        description="Base URL of a schema registry that speaks the Confluent REST API; the running platform's if unset",
    )
    registry_user: str | None = Field(default=None, description="User of the registry, where it asks for one")
    registry_password: SecretStr | None = Field(default=None, description="Password of the registry's user")
    client_properties: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='More librdkafka properties for every client, e.g. {"security.protocol": "SASL_SSL", ...}',
    )
    request_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Longest wait for one answer of the broker or the registry"
    )
    replication_factor: int = Field(
        default=-1, ge=-1, le=32767, description="Replicas of the topics that K2 creates; -1 is the broker's default"
    )
    schema_cache_entries_max: int = Field(
        default=1000, gt=0, description="Schemas kept that the registry gave and no table has recorded yet"
    )

    fetch_wait_ms: int = Field(
        default=10, ge=0, le=300_000, description="How long the broker may hold back a fetch that finds nothing, ms"
    )
    fetch_bytes_max: int = Field(default=64 * MEBIBYTE, ge=1024, le=2**31 - 513, description="Most bytes of one fetch")
    partition_fetch_bytes_max: int = Field(
        default=8 * MEBIBYTE, ge=1024, le=1_000_000_000, description="Most bytes of one partition in one fetch"
    )
    consumer_queue_bytes_max: int = Field(
        default=64 * MEBIBYTE, ge=MEBIBYTE, le=2**40, description="Bytes fetched ahead of the reader, per client"
    )
    consumer_queue_messages_min: int = Field(
        default=100_000, ge=1, le=10_000_000, description="Messages fetched ahead per partition, if the bytes allow it"
    )
    session_timeout_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Silence after which the group gives a reader's partitions to others"
    )
    poll_interval_seconds_max: float = Field(
        default=300.0, gt=0, le=86400, description="Longest pause between two polls before a group member is put out"
    )

    producer_linger_ms: float = Field(
        default=5.0, ge=0, le=900_000, description="How long a message waits for others to share its request, ms"
    )
    producer_batch_bytes_max: int = Field(default=MEBIBYTE, ge=1024, le=2**31 - 1, description="Most bytes of a batch")
    producer_queue_messages_max: int = Field(
        default=200_000, ge=1, le=10_000_000, description="Messages sent and not yet acknowledged; then `send` blocks"
    )
    producer_queue_bytes_max: int = Field(
        default=64 * MEBIBYTE, ge=MEBIBYTE, le=2**40, description="Bytes sent and not yet acknowledged; then it blocks"
    )
    message_bytes_max: int = Field(
        default=2 * MEBIBYTE, ge=1000, le=1_000_000_000, description="Largest message that a producer accepts"
    )
    delivery_timeout_seconds: float = Field(
        default=120.0, gt=0, le=86400, description="How long the producer tries to deliver one message"
    )

    @property
    def brokers(self) -> str:
        """The brokers to ask first; ConfigurationError where none is named: a guess could write to a stranger's log."""
        return self._named("a broker", "K2_KAFKA__BOOTSTRAP_SERVERS", self.bootstrap_servers)

    @property
    def registry(self) -> str:
        """The registry's base URL without a slash at its end; ConfigurationError where none is named."""
        return self._named("a schema registry", "K2_KAFKA__REGISTRY_URL", self.registry_url).rstrip("/")

    @staticmethod
    def _named(what: str, variable: str, value: str) -> str:
        if not value:
            raise ConfigurationError(
                f"expected {what}, found none named, and no platform runs on the data directory: start one (`k2 up`), "
                f"name the directory of one that runs (--data-dir, K2_DATA_DIR), or set {variable}"
            )
        return value


class AnnouncingSettings(BaseModel):
    """Limits on what processes tell each other about overload, on drills, and on releases of halted streams."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fresh_seconds: float = Field(
        default=15.0, gt=0, le=3600, description="How long a worker's level counts after it was last heard of"
    )
    queued_max: int = Field(
        default=100, gt=0, description="Announcements that wait to be sent; past it the oldest is dropped, and counted"
    )
    send_seconds_max: float = Field(
        default=10.0, gt=0, le=3600, description="How long one announcement or request for a drill may take"
    )
    retry_pause_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="Pause before levels and drills are read again after a failure"
    )
    workers_max: int = Field(default=1_000, gt=0, description="Workers whose levels are remembered at a time")
    drill_seconds_max: float = Field(default=3600.0, gt=0, le=86_400, description="Longest drill")
    drill_sink_delay_seconds_max: float = Field(
        default=30.0, ge=0, le=600, description="Most that a drill makes each commit wait"
    )
    drills_read_max: int = Field(
        default=1_000, gt=0, description="Requests for drills that are read back to find the one in force"
    )
    releases_read_max: int = Field(
        default=10_000, gt=0, description="Releases of halted streams that a worker reads back, and remembers"
    )
