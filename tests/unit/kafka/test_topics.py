"""topics.yaml: what it says, and every way in which it can be wrong."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest
import yaml

from k2.common.errors import ConfigurationError
from k2.kafka.topics import PACKAGED, TopicCatalog, exchange_of
from k2.schemas.records import QUOTES, TRADES

WEEK_MS = 7 * 86_400_000


@pytest.fixture
def catalog() -> TopicCatalog:
    return TopicCatalog.load()


@pytest.fixture
def load(tmp_path):
    def write_and_load(text: str) -> TopicCatalog:
        path = tmp_path / "topics.yaml"
        path.write_text(text)
        return TopicCatalog.load(path)

    return write_and_load


@pytest.fixture
def content() -> dict:
    return yaml.safe_load(PACKAGED.read_text())


def test_the_packaged_file_is_the_one_in_config() -> None:
    assert PACKAGED.resolve() == Path(__file__).parents[3] / "config" / "topics.yaml"


def test_the_five_exchanges_are_there(catalog) -> None:
    found = {name: (e.asset_class, e.timezone, e.sequence_scope) for name, e in catalog.exchanges.items()}

    assert found == {
        "asx": ("equities", "Australia/Sydney", "symbol"),
        "binance": ("crypto", "UTC", "symbol"),
        "kraken": ("crypto", "UTC", "none"),
        "coinbase": ("crypto", "UTC", "channel"),
        "sim": ("simulated", "UTC", "symbol"),
    }


def test_market_topics_are_trades_and_quotes_of_every_exchange(catalog) -> None:
    names = [topic.name for topic in catalog.market_topics]

    assert "market.equities.trades.asx" in names
    assert "market.crypto.quotes.kraken" in names
    assert len(names) == 10
    assert all(topic.partitions == 4 for topic in catalog.market_topics)


def test_every_market_topic_has_a_topic_for_its_dead_letters(catalog) -> None:
    names = {topic.name for topic in catalog.all_topics}

    assert {topic.dead_letter_name for topic in catalog.market_topics} <= names


def test_status_and_reference_data_have_one_partition(catalog) -> None:
    assert catalog.topic("asx", "status").partitions == 1
    assert catalog.topic("asx", "instruments").partitions == 1
    assert catalog.topic("asx", "instruments").config["cleanup.policy"] == "compact"


def test_what_processes_tell_each_other_is_no_market_data(catalog) -> None:
    levels, drills, releases = catalog.control_topics

    assert (levels.name, levels.partitions, levels.config["cleanup.policy"]) == ("k2.degradation", 1, "compact,delete")
    assert (drills.name, drills.partitions, drills.config["cleanup.policy"]) == ("k2.drills", 1, "delete")
    assert (releases.name, releases.partitions, releases.config["cleanup.policy"]) == ("k2.releases", 1, "delete")
    assert int(drills.config["retention.ms"]) == 365 * 86_400_000
    assert [topic for topic in catalog.market_topics if topic in catalog.control_topics] == []
    with pytest.raises(ConfigurationError, match="expected a topic of trades or quotes"):
        catalog.record_type(drills)


def test_a_file_from_before_the_control_topics_is_read(load, content) -> None:
    del content["control"]

    assert len(load(yaml.safe_dump(content)).control_topics) == 3


def test_market_topics_take_the_brokers_time_and_keep_a_week(catalog) -> None:
    config = catalog.topic("asx", "trades").config

    assert config["message.timestamp.type"] == "LogAppendTime"
    assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", str(WEEK_MS))


def test_a_topic_is_found_by_its_name_and_has_its_record_type(catalog) -> None:
    assert catalog.record_type(catalog.by_name("market.equities.trades.asx")) is TRADES
    assert catalog.record_type(catalog.by_name("market.equities.quotes.asx")) is QUOTES


@pytest.mark.parametrize("name", ["market.equities.trades.asx", "market.equities.trades.asx.dlq"])
def test_a_topics_name_tells_the_exchange(name) -> None:
    assert exchange_of(name) == "asx"


def test_what_is_not_there_is_a_clear_error(catalog) -> None:
    with pytest.raises(ConfigurationError, match="'no-such-exchange'"):
        catalog.topic("no-such-exchange", "trades")
    with pytest.raises(ConfigurationError, match=r"'market\.x'"):
        catalog.by_name("market.x")
    with pytest.raises(ConfigurationError, match="expected a topic of trades or quotes"):
        catalog.record_type(catalog.topic("asx", "status"))


def changed(content: dict, path: str, value) -> dict:
    *parents, last = path.split("/")
    place = content
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "red", "unknown key colour (found 'red')"),
        ("exchanges/asx/colour", "red", "unknown key exchanges.asx.colour"),
        ("data_types/trades/days", 7, "unknown key data_types.trades.days"),
        ("data_types/trade", {"retention_days": 7}, "unknown key data_types.trade"),
        ("version", 2, "version: Input should be 1; found 2"),
        ("version", None, "version: Field required"),
        ("exchanges", None, "exchanges: Field required"),
        ("exchanges", {}, "exchanges"),
        ("data_types/quotes", None, "data_types.quotes: Field required"),
        ("data_types/trades/retention_days", 0, "data_types.trades.retention_days"),
        ("data_types/trades/retention_days", "week", "found 'week'"),
        ("data_types/trades", {}, "either retention_days or compacted"),
        ("data_types/trades/compacted", True, "either retention_days or compacted"),
        (
            "exchanges/asx/partitions",
            0,
            "exchanges.asx.partitions: Input should be greater than or equal to 1",
        ),
        ("exchanges/asx/partitions", "4", "exchanges.asx.partitions"),
        ("exchanges/asx/partitions", None, "exchanges.asx.partitions: Field required"),
        ("exchanges/asx/timezone", "Sydney", "no such time zone"),
        ("exchanges/asx/timezone", "../etc/passwd", "no such time zone"),
        ("exchanges/asx/sequence_scope", "venue", "found 'venue'"),
        ("exchanges/asx/lines", ["a"], "two names or more"),
        ("exchanges/asx/lines", ["a", "a"], "no two the same"),
        ("exchanges/kraken/lines", ["a", "b"], "of a venue that numbers its messages"),
        ("exchanges/asx/sessions", ["10:00"], 'a list of sessions such as "10:00-16:00"'),
        ("exchanges/asx/sessions", "10:00-16:00", "a list of sessions"),
        ("exchanges/asx/sessions", ["16:00-10:00"], "ends after it begins"),
        ("exchanges/asx/sessions", ["10:00-12:00", "11:00-16:00"], "in their order"),
        ("exchanges/asx/bars/hours", ["16:00-10:00"], "ends after it begins"),
        ("exchanges/asx/bars/conditions", "0", "exchanges.asx.bars.conditions"),
        ("exchanges/asx/bars/holidays", [], "unknown key exchanges.asx.bars.holidays"),
        ("exchanges/asx/closed", ["Easter"], "exchanges.asx.closed.0"),
        ("exchanges/asx/asset_class", "Equities", "exchanges.asx.asset_class"),
        ("exchanges/A S X", {}, "exchanges"),
        ("exchanges/asx", "sydney", "exchanges.asx"),
        ("control/drills_days", 0, "control.drills_days"),
    ],
)
def test_a_mistake_is_named_with_file_and_value(load, content, tmp_path, path, value, message) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(yaml.safe_dump(changed(content, path, value)))

    assert message in str(raised.value)
    assert str(tmp_path / "topics.yaml") in str(raised.value)


def test_an_exchange_with_an_impossible_name_is_refused(load, content) -> None:
    content["exchanges"]["A.SX"] = content["exchanges"]["asx"]

    with pytest.raises(ConfigurationError, match=r"'A\.SX' is no exchange name"):
        load(yaml.safe_dump(content))


def test_two_exchanges_of_one_name_are_refused(load) -> None:
    text = PACKAGED.read_text() + "  asx:\n    asset_class: equities\n"

    with pytest.raises(ConfigurationError, match="'asx' comes twice"):
        load(text)


@pytest.mark.parametrize("text", ["", "[]", "just words", "version: [1", "\t- x", "? [a]\n: b"])
def test_a_text_that_is_no_such_file_is_refused(load, text) -> None:
    with pytest.raises(ConfigurationError, match=r"topics\.yaml"):
        load(text)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the topics file .*absent\.yaml"):
        TopicCatalog.load(tmp_path / "absent.yaml")


def test_the_rule_of_bars_is_read_and_without_one_every_print_counts(catalog: TopicCatalog) -> None:
    asx, sim = catalog.exchanges["asx"].bars, catalog.exchanges["sim"].bars

    assert asx.conditions == ("0", "2")
    assert asx.hours == ((time(9, 59), time(16, 13)),)
    assert (sim.sessions, sim.hours, sim.conditions) == ((), (), None)
