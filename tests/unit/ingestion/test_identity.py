import pytest

from k2.common.errors import LogIdentityError
from k2.ingestion.identity import ShortLogError, check_seam, check_unchanged, find_log
from k2.kafka.ports import LogIdentity, LogRange
from k2.storage.seam import LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog

TOPIC = "market.equities.trades.asx"
LOG = RegisteredLog(0, "cluster-a", "id-1", TOPIC, 2, {0: 0, 1: 0})


def seam(**offsets: int) -> Seam:
    return Seam(1, {LogPartition(0, int(key[1:])): PartitionSeam(offset) for key, offset in offsets.items()})


def test_a_topic_that_the_table_has_never_met_has_no_log():
    assert find_log("trades", LogIdentity("cluster-a", "id-1", "market.crypto.trades.sim", 2), [LOG]) is None


def test_the_same_topic_is_its_registered_log():
    assert find_log("trades", LogIdentity("cluster-a", "id-1", TOPIC, 2), [LOG]) is LOG


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (LogIdentity("cluster-a", "id-2", TOPIC, 2), r"deleted and created again.*id-1 \(log 0\).*found id id-2"),
        (LogIdentity("cluster-b", "id-1", TOPIC, 2), r"built from cluster cluster-a \(log 0\).*cluster cluster-b"),
        (LogIdentity("cluster-a", "id-1", TOPIC, 6), r"with 2 partitions, found 6"),
    ],
)
def test_another_log_of_the_same_name_is_refused_with_the_exact_difference(identity, text):
    with pytest.raises(LogIdentityError, match=text):
        find_log("trades", identity, [LOG])


def test_a_log_accepted_later_is_found_beside_the_old_one():
    accepted = RegisteredLog(1, "cluster-a", "id-2", TOPIC, 4, {})

    assert find_log("trades", LogIdentity("cluster-a", "id-2", TOPIC, 4), [LOG, accepted]) is accepted


def test_a_seam_at_either_edge_of_the_log_is_allowed():
    check_seam("trades", LOG, seam(p0=10, p1=99), {0: LogRange(10, 50), 1: LogRange(0, 99)})


def test_a_log_shorter_than_the_seam_is_refused_with_the_number_of_records_that_are_missing():
    expected = r"partition 1: seam says 1,234, log ends at 1,000: 234 records"

    with pytest.raises(ShortLogError, match=expected):
        check_seam("trades", LOG, seam(p0=0, p1=1234), {0: LogRange(0, 5), 1: LogRange(0, 1000)})


def test_a_seam_that_retention_has_passed_is_refused_with_the_range_that_is_lost():
    expected = r"partition 0: seam says 100, log begins at 350: offsets 100 to 349 \(250 records\)"

    with pytest.raises(LogIdentityError, match=expected):
        check_seam("trades", LOG, seam(p0=100, p1=0), {0: LogRange(350, 400), 1: LogRange(0, 5)})


def test_a_topic_that_vanished_or_changed_while_it_was_read_is_noticed():
    before = LogIdentity("cluster-a", "id-1", TOPIC, 2)

    check_unchanged([before], {TOPIC: before})
    with pytest.raises(LogIdentityError, match="was deleted while"):
        check_unchanged([before], {})
    with pytest.raises(LogIdentityError, match=r"expected id id-1 .* found id id-9"):
        check_unchanged([before], {TOPIC: LogIdentity("cluster-a", "id-9", TOPIC, 2)})
