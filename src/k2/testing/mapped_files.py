"""Files with a mapping, imported into a feed's surroundings in memory as the command does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.feeds.bad_lines import BadLines
from k2.feeds.mapped.csv_cells import CsvCells
from k2.feeds.mapped.files import MappedFile
from k2.feeds.mapped.importing import ImportedFile, check_all, import_all
from k2.feeds.mapped.mapping import exchange_of, read_mapping
from k2.feeds.mapped.parquet_cells import ParquetCells

if TYPE_CHECKING:
    from pathlib import Path

    from k2.testing.feed_world import FeedWorld

LATEST_NS = 4_000_000_000_000_000_000


def mapped_file(world: FeedWorld, path: Path, mapping_path: Path) -> MappedFile:
    """Return a file with its mapping; what it is, its name's end says."""
    mapping = read_mapping(mapping_path)
    zone = exchange_of(mapping, world.topics).timezone
    cells = (
        ParquetCells(path, mapping, world.settings.import_rows_max)
        if path.suffix == ".parquet"
        else CsvCells(path, mapping, world.settings.import_block_bytes)
    )
    return MappedFile(path, mapping, zone, cells, LATEST_NS)


def import_mapped(
    world: FeedWorld, path: Path, mapping_path: Path, *, bad_lines: BadLines = BadLines.REFUSE
) -> ImportedFile:
    """Import one file and say what became of it."""
    checked = check_all(
        [mapped_file(world, path, mapping_path)], world.settings, bad_lines=bad_lines, on_progress=lambda *_: None
    )
    (found,) = import_all(checked, channel=world.channel, held=world.held, on_progress=lambda *_: None)
    return found
