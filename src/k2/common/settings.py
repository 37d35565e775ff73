"""Settings of the degradation ladder: where its levels begin, how calm it must be to come down, how a sink is tried."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path  # noqa: TC003  # pydantic reads the annotation at run time
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k2.common.degradation import Limits

_LEVELS: Final = ("soft", "graceful", "aggressive", "circuit_break")


class DegradationThresholds(BaseModel):
    """Where each level begins: the highest level that one of the three measures reaches is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    soft_lag_records: float = Field(default=100_000, gt=0, description="Records waiting from which on the level is 1")
    graceful_lag_records: float = Field(
        default=500_000, gt=0, description="Records waiting from which on the level is 2"
    )
    aggressive_lag_records: float = Field(
        default=1_000_000, gt=0, description="Records waiting from which on the level is 3"
    )
    circuit_break_lag_records: float = Field(
        default=5_000_000, gt=0, description="Records waiting from which on the level is 4"
    )
    soft_memory_percent: float = Field(
        default=70, gt=0, le=100, description="Share of this process's memory limit from which on the level is 1"
    )
    graceful_memory_percent: float = Field(
        default=80, gt=0, le=100, description="Share of this process's memory limit from which on the level is 2"
    )
    aggressive_memory_percent: float = Field(
        default=90, gt=0, le=100, description="Share of this process's memory limit from which on the level is 3"
    )
    circuit_break_memory_percent: float = Field(
        default=95,
        gt=0,
        le=100,
        description="Share of this process's memory limit from which on the level is 4 and partitions pause",
    )
    soft_drain_seconds: float = Field(
        default=1.0, gt=0, description="Time to drain the worst partition from which on the level is 1"
    )
    graceful_drain_seconds: float = Field(
        default=2.0, gt=0, description="Time to drain the worst partition from which on the level is 2"
    )
    aggressive_drain_seconds: float = Field(
        default=3.0, gt=0, description="Time to drain the worst partition from which on the level is 3"
    )
    circuit_break_drain_seconds: float = Field(
        default=4.0, gt=0, description="Time to drain the worst partition from which on the level is 4"
    )
    lag_recovery_ratio: float = Field(
        default=0.5, gt=0, lt=1, description="Share of a level's lag below which it may be left"
    )
    memory_recovery_ratio: float = Field(
        default=0.9, gt=0, lt=1, description="Share of a level's memory below which it may be left"
    )
    drain_recovery_ratio: float = Field(
        default=0.5, gt=0, lt=1, description="Share of a level's time to drain below which it may be left"
    )

    @model_validator(mode="after")
    def _levels_rise(self) -> Self:
        for measure, limits in self.limits()._asdict().items():
            for (lower, lower_limit), (higher, higher_limit) in pairwise(zip(_LEVELS, limits, strict=True)):
                if lower_limit >= higher_limit:
                    raise ValueError(
                        f"expected {lower}_{measure} below {higher}_{measure}, found {lower_limit:g} and "
                        f"{higher_limit:g}: lower the first or raise the second"
                    )
        return self

    def limits(self) -> Limits:
        """Return where levels are entered."""
        return Limits(
            lag_records=(
                self.soft_lag_records,
                self.graceful_lag_records,
                self.aggressive_lag_records,
                self.circuit_break_lag_records,
            ),
            memory_percent=(
                self.soft_memory_percent,
                self.graceful_memory_percent,
                self.aggressive_memory_percent,
                self.circuit_break_memory_percent,
            ),
            drain_seconds=(
                self.soft_drain_seconds,
                self.graceful_drain_seconds,
                self.aggressive_drain_seconds,
                self.circuit_break_drain_seconds,
            ),
        )

    def recovery_limits(self) -> Limits:
        """Return what the load must be below for a level to be left."""
        return self.limits().scaled(
            lag=self.lag_recovery_ratio, memory=self.memory_recovery_ratio, drain=self.drain_recovery_ratio
        )


class DegradationSettings(BaseModel):
    """Thresholds and times of the ladder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    thresholds: DegradationThresholds = Field(
        default_factory=DegradationThresholds, description="Where each level begins"
    )
    calm_seconds: float = Field(
        default=30.0, gt=0, description="How long the load must have been calm before a level is left"
    )
    step_seconds: float = Field(
        default=3.0, ge=0, description="Least time between two steps down, if it has been calm for long enough"
    )
    flap_seconds: float = Field(
        default=30.0, ge=0, description="A climb so soon after a step down doubles the calm that the next one needs"
    )
    hold_seconds_max: float = Field(
        default=45.0,
        gt=0,
        description="Longest calm that is asked for, however often it flapped; with three steps more it is the time "
        "back to NORMAL",
    )
    sink_probe_seconds: float = Field(
        default=0.5, gt=0, description="Pause before a sink that failed is tried again; doubles with each failure"
    )
    sink_probe_seconds_max: float = Field(
        default=15.0, gt=0, description="Longest pause before a sink that failed is tried again"
    )
    history_max: int = Field(default=200, gt=0, description="Changes of level that are remembered")
    memory_limit_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Memory that this process may have; the limit of its control group if unset, and none if that has "
        "none: memory then decides nothing",
    )
    memory_interval_seconds: float = Field(
        default=1.0, gt=0, description="Least time between two measurements of this process's memory"
    )
    rate_seconds: float = Field(default=1.0, gt=0, description="Half-life of the measured rates of arrival and service")
    look_ahead_seconds: float = Field(
        default=1.0, ge=0, description="How far ahead the time to drain counts what is still to pile up"
    )
    drain_records_min: int = Field(
        default=1_000,
        ge=1,
        description="Records of a partition below which its time to drain does not count: a slow feed is no overload",
    )
    service_doubling_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Time in which the service rate of a reader that has nothing to wait for is taken to double, up to "
        "the best one measured",
    )
    check_seconds: float = Field(default=0.1, gt=0, description="Least time between two looks at the load")
    confirm_seconds: float = Field(
        default=1.0, ge=0, description="How long a time to drain must have lasted to count: a burst is no overload"
    )
    warm_up_seconds: float = Field(
        default=60.0, ge=0, description="How long a partition of which nothing was served yet has no time to drain"
    )
    announce_seconds: float = Field(
        default=2.0, gt=0, description="Longest time between two announcements of the level to the other processes"
    )
    tiers_file: Path | None = Field(
        default=None,
        description='File with {"tier_1": [symbols], "tier_2": [symbols]}: the first are never deferred, '
        "the second late, all others early; without one, nothing is deferred",
    )
    spill_bytes_max: int = Field(
        default=2 * 2**30,
        ge=0,
        description="Bytes of decoded records that a worker keeps on disk from level 3 on; past it they stay in memory",
    )
    keys_max: int = Field(
        default=100_000, gt=0, description="Keys whose priority the shedder remembers; past it, it begins anew"
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        for lower, higher in (
            ("step_seconds", "calm_seconds"),
            ("calm_seconds", "hold_seconds_max"),
            ("sink_probe_seconds", "sink_probe_seconds_max"),
        ):
            if getattr(self, lower) > getattr(self, higher):
                raise ValueError(
                    f"expected {lower} at most {higher}, found {getattr(self, lower):g} and "
                    f"{getattr(self, higher):g}: lower the first or raise the second"
                )
        return self
