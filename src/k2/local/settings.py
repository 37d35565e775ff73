"""Settings of the local platform: ports, memory, waits and limits of the processes that it starts."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation at run time

from pydantic import BaseModel, ConfigDict, Field

MEBIBYTE = 1024 * 1024


class LocalSettings(BaseModel):
    """Limits of one platform on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ports: dict[str, int] = Field(
        default_factory=dict,
        description="Ports that must be used, by name (kafka, kafka-controller, registry, registry-management, valkey, "
        "api, worker, upkeep); the others are the usual ones, or the next free",
    )
    cache_dir: Path | None = Field(
        default=None, description="Where downloads are kept; `$XDG_CACHE_HOME/k2` or `~/.cache/k2` if unset"
    )
    kafka_heap_mebibytes: int = Field(default=384, ge=256, le=512, description="Largest Java heap of Kafka")
    registry_heap_mebibytes: int = Field(default=256, ge=128, description="Largest Java heap of the registry")
    valkey_mebibytes_max: int = Field(default=256, ge=16, description="Most memory that Valkey's contents may take")
    start_seconds_max: float = Field(default=90.0, gt=0, description="Longest wait for one component to be ready")
    stop_seconds_max: float = Field(
        default=20.0, gt=0, description="Longest wait for one component to end; then SIGKILL"
    )
    check_seconds: float = Field(default=2.0, gt=0, description="Pause between two health checks of a component")
    check_timeout_seconds: float = Field(default=3.0, gt=0, description="Longest wait of one health check")
    unhealthy_after_checks: int = Field(default=3, ge=1, description="Failed checks in a row that make it unhealthy")
    hung_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long a component may fail its checks, its needs met, before it is restarted",
    )
    restart_pause_seconds: float = Field(
        default=0.2,
        gt=0,
        description="Pause after the second death without calm; the first has none; doubles each time",
    )
    restart_pause_seconds_max: float = Field(default=30.0, gt=0, description="Longest pause before a restart")
    calm_seconds: float = Field(default=60.0, gt=0, description="Life after which earlier deaths are forgotten")
    failing_after_deaths: int = Field(default=4, ge=1, description="Deaths without calm that make a component failing")
    log_bytes_max: int = Field(
        default=10 * MEBIBYTE,
        ge=64 * 1024,
        description="Size at which a component's log is turned over; one old is kept",
    )
    free_bytes_min: int = Field(
        default=256 * MEBIBYTE, ge=0, description="Free space below which the platform does not start"
    )
    download_threads: int = Field(default=6, ge=1, le=32, description="Files downloaded at the same time")
    download_timeout_seconds: int = Field(default=30, ge=1, description="Longest silence of a download")
    download_attempts_max: int = Field(default=3, ge=1, description="Attempts at one file")
    fast_start: bool = Field(
        default=True, description="Prepare Java's ahead-of-time caches in the background after the first start"
    )
    fast_start_delay_seconds: float = Field(
        default=5.0, ge=0, description="Pause between ready and the preparation of the ahead-of-time caches"
    )
