"""A table at offset 20 of a log of 30 records, with dead letters, and what plans and applies moves of its seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2.ingestion.offset_plans import OffsetPlanner
from k2.ingestion.settings import IngestionSettings
from k2.query.audit import Auditor
from k2.query.scan import Scanner
from k2.storage.dead_letter_offsets import DeadLetterOffsets
from k2.storage.gaps import GapReader
from k2.storage.planning import Planner
from k2.storage.seam_moves import SeamMover
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeReader
from k2.testing.local_lake import TOPIC
from k2.testing.manual_clock import ManualClock
from k2.testing.replay_world import AT, TOPIC_ID, ReplayWorld, message
from k2.testing.simulated_hybrid import SETTINGS, topic

if TYPE_CHECKING:
    from pathlib import Path

    from k2.query.audit_report import AuditReport

RECORDS: Final = 30


class OffsetWorld:
    """Tables under `directory`; several worlds may share it, as processes do. The log is the same in each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = ReplayWorld(directory)
        self.log = FakeLog(cluster_id="cluster-1")
        self.log.create_topic(TOPIC, 2)
        self.log.topics[TOPIC].topic_id = TOPIC_ID
        for offset in range(RECORDS):
            self.log.append(TOPIC, b"AAA", message(offset), partition=0)
        lake = self.world.lake
        self.planner = OffsetPlanner(
            lake.tables,
            FakeAdmin(self.log),
            SeamMover(lake.tables, lake.settings, lake.clock),
            DeadLetterOffsets(lake.tables),
            lambda: FakeReader(self.log),
            {TOPIC: "trades"},
            settings=IngestionSettings(),
            clock=lake.clock,
        )

    def create(self) -> OffsetWorld:
        """Create the tables and ingest the first 20 records, of which 3 and 15 become dead letters."""
        self.world.create()
        self.world.ingest(0, 10, bad=[3])
        self.world.ingest(10, 20, bad=[15])
        return self

    def audit(self) -> AuditReport:
        """Compare the table with the log."""
        lake = self.world.lake
        return Auditor(
            [topic("sim", partitions=2)],
            planner=Planner(lake.tables, lake.settings),
            log_facts=FakeAdmin(self.log),
            open_reader=lambda: FakeReader(self.log),
            dead_letters=DeadLetterOffsets(lake.tables),
            gaps=GapReader(lake.tables),
            scanner=Scanner([str(self.directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30),
            settings=SETTINGS,
            clock=ManualClock(),
        ).verify()

    def seam(self) -> int | None:
        """Return the next offset of the partition that has records."""
        return self.world.lake.tables.head("trades").seam.next_offset(AT)

    def close(self) -> None:
        """Close the catalog."""
        self.world.lake.close()
