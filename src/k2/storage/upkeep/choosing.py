"""Chooses the files to rewrite together: pure, from their sizes and whether their day is still written to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from k2.storage.settings import UpkeepSettings
    from k2.storage.upkeep.live_files import LiveFile, Partition

_STEP: Final = 10


class Kind(StrEnum):
    """Why files are rewritten."""

    MERGE = "merge"
    """The day is still written to: small files of like size become one."""
    COMPACT = "compact"
    """The day is quiet: all its small files become few, sorted through."""


@dataclass(frozen=True, slots=True)
class Job:
    """Files of one partition that are to be replaced by `outputs` sorted ones."""

    kind: Kind
    partition: Partition
    files: tuple[LiveFile, ...]
    outputs: int

    @property
    def rows(self) -> int:
        """Return how many rows they have."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Return their size."""
        return sum(file.size_bytes for file in self.files)


def choose(files: Sequence[LiveFile], settings: UpkeepSettings, *, quiet: bool) -> tuple[Job, ...]:
    """Return the jobs for one partition's files, oldest files first; none where rewriting would gain nothing."""
    small = [file for file in files if file.size_bytes < settings.file_bytes_min]
    if quiet:
        groups: Iterator[list[LiveFile]] = _packed(small, settings.job_bytes_max)
        kind, least = Kind.COMPACT, 2
    else:
        groups = (
            group
            for tier in _tiers(small, settings).values()
            if len(tier) >= settings.merge_files_min
            for group in _packed(tier, settings.file_bytes_max)
        )
        kind, least = Kind.MERGE, settings.merge_files_min
    jobs = []
    for group in groups:
        outputs = max(1, math.ceil(sum(file.size_bytes for file in group) / settings.file_bytes_max))
        if len(group) >= least and outputs < len(group):
            jobs.append(Job(kind, group[0].partition, tuple(group), outputs))
    return tuple(jobs)


def by_partition(files: Sequence[LiveFile]) -> dict[Partition, list[LiveFile]]:
    """Return the files by partition, keeping their order."""
    found: dict[Partition, list[LiveFile]] = {}
    for file in files:
        found.setdefault(file.partition, []).append(file)
    return found


def _tiers(files: Sequence[LiveFile], settings: UpkeepSettings) -> dict[int, list[LiveFile]]:
    """Group files of like size, so that a row is rewritten once for each step up and not once for each merge."""
    tiers: dict[int, list[LiveFile]] = {}
    for file in files:
        tier, limit = 0, settings.merge_tier_bytes
        while file.size_bytes >= limit:
            tier, limit = tier + 1, limit * _STEP
        tiers.setdefault(tier, []).append(file)
    return tiers


def _packed(files: Sequence[LiveFile], bytes_max: int) -> Iterator[list[LiveFile]]:
    """Cut the files into groups of at most `bytes_max`; a file above it is a group by itself."""
    group: list[LiveFile] = []
    size = 0
    for file in files:
        if group and size + file.size_bytes > bytes_max:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size_bytes
    if group:
        yield group
