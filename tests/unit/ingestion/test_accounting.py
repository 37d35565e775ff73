import pytest

from k2.common.errors import AccountingError
from k2.ingestion.accounting import check_ledger
from k2.storage.seam import Counts, LogPartition, PartitionDelta

KEY = LogPartition(0, 3)


def test_a_ledger_that_adds_up_passes():
    check_ledger("trades", {KEY: PartitionDelta(0, 12, Counts(consumed=10, rows=8, dead_letters=2))}, rows_in_files=8)


def test_a_record_without_a_fate_stops_the_writer_with_the_figures():
    deltas = {KEY: PartitionDelta(100, 110, Counts(consumed=10, rows=8, dead_letters=1))}

    with pytest.raises(AccountingError, match=r"partition 3, offsets 100 to 109: consumed 10, .* 1 unaccounted"):
        check_ledger("trades", deltas, rows_in_files=8)


def test_a_row_that_is_in_no_file_stops_the_writer():
    deltas = {KEY: PartitionDelta(0, 10, Counts(consumed=10, rows=10))}

    with pytest.raises(AccountingError, match=r"10 rows were decoded, but the footers .* hold 9"):
        check_ledger("trades", deltas, rows_in_files=9)


def test_more_records_than_offsets_stop_the_writer():
    deltas = {KEY: PartitionDelta(0, 5, Counts(consumed=6, rows=6))}

    with pytest.raises(AccountingError, match=r"consumed 6 records from the 5 offsets"):
        check_ledger("trades", deltas, rows_in_files=6)
