"""What the simulated market promises: the same bytes for the same seed, and trades and quotes that agree."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.market import Market, MarketRun
from k2.feeds.market_arrivals import activity_of
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import QUOTES, TRADES

START_NS = 1_767_225_600_000_000_000
SECOND_NS = 1_000_000_000


def play(run: MarketRun, seconds: float = 4) -> tuple[pl.DataFrame, pl.DataFrame]:
    slices = list(Market(run, duration_ns=int(seconds * SECOND_NS)).slices())
    return pl.concat([part.trades for part in slices]), pl.concat([part.quotes for part in slices])


def run_of(**changes: float) -> MarketRun:
    return MarketRun(**({"seed": 7, "start_ns": START_NS, "rate": 3_000.0, "symbols": 12} | changes))


@pytest.fixture(scope="module", params=[1, 2, 3])
def played(request: pytest.FixtureRequest) -> tuple[pl.DataFrame, pl.DataFrame]:
    return play(run_of(seed=request.param))


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = play(run_of()), play(run_of())

    for one, other in zip(first, second, strict=True):
        assert one.write_ipc(None).getvalue() == other.write_ipc(None).getvalue()


@pytest.mark.parametrize("change", [{"seed": 8}, {"start_ns": START_NS + 1}, {"rate": 3_001.0}, {"symbols": 13}])
def test_another_run_has_another_source_so_no_identity_is_shared(change: dict[str, float]) -> None:
    assert run_of(**change).run_id != run_of().run_id


def test_another_seed_gives_other_trades() -> None:
    numbers = ["ts_event_ns", "price", "quantity"]

    assert not play(run_of())[0].select(numbers).equals(play(run_of(seed=8))[0].select(numbers))


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    for short, long in zip(play(run_of(), 1.23), play(run_of(), 4), strict=True):
        assert 0 < len(short) < len(long)
        assert short.equals(long.head(len(short)))
        assert short["ts_event_ns"].max() < START_NS + 1.23 * SECOND_NS


def test_the_frames_have_the_columns_of_the_message(played: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    trades, quotes = played

    assert dict(trades.schema) == message_polars_schema(TRADES)
    assert dict(quotes.schema) == message_polars_schema(QUOTES)


def test_the_bid_is_below_the_ask_and_all_sizes_are_positive(played: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    _, quotes = played

    assert quotes.filter(pl.col("bid_price") >= pl.col("ask_price")).is_empty()
    assert quotes.filter((pl.col("bid_price") <= 0) | (pl.col("bid_size") <= 0) | (pl.col("ask_size") <= 0)).is_empty()


def test_a_trade_is_at_the_bid_or_ask_that_stood_and_takes_no_more_than_stood_there(
    played: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    trades, quotes = played
    side = ["symbol", "ts_event_ns", "bid_price", "bid_size", "ask_price", "ask_size"]

    both = trades.join_asof(quotes.select(side), on="ts_event_ns", by="symbol", check_sortedness=False)

    is_buy = pl.col("side") == "BUY"
    price = pl.when(is_buy).then("ask_price").otherwise("bid_price")
    size = pl.when(is_buy).then("ask_size").otherwise("bid_size")
    agrees = (pl.col("price") == price) & (pl.col("quantity") <= size) & (pl.col("quantity") > 0)
    assert len(both) > 1_000
    assert both.filter(~agrees | agrees.is_null()).is_empty()
    assert set(both["side"]) == {"BUY", "SELL"}


def test_prices_lie_on_the_tick_grid(played: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    for frame, columns in zip(played, (["price"], ["bid_price", "ask_price"]), strict=True):
        for column in columns:
            assert (frame[column].cast(pl.Decimal(28, 3)).cast(pl.Decimal(28, 12)) == frame[column]).all()


def test_sequences_begin_at_one_and_have_no_hole(played: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    for frame in played:
        by_symbol = frame.group_by("symbol").agg(
            in_order=(pl.col("sequence") == pl.int_range(1, pl.len() + 1)).all(),
            times_rise=(pl.col("ts_event_ns").diff() > 0).all(),
        )
        assert by_symbol["in_order"].all()
        assert by_symbol["times_rise"].all()
        assert frame["source_sequence"].to_list() == list(range(1, len(frame) + 1))
        assert (frame["ts_recv_ns"] > frame["ts_event_ns"]).all()


def test_each_trade_id_is_given_once(played: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    assert played[0]["trade_id"].is_unique().all()


def test_the_ends_say_how_far_each_symbol_came() -> None:
    market = Market(run_of(), duration_ns=int(1.23 * SECOND_NS))
    trades = pl.concat([part.trades for part in market.slices()])

    ends = market.ends("trades")

    expected = trades.group_by("symbol").agg(pl.col("sequence").max(), pl.col("source_sequence").max()).sort("symbol")
    assert ends.select("symbol", "last_sequence", "last_source_sequence").rows() == expected.rows()
    assert set(ends["source"]) == {run_of().run_id}


def test_the_rate_is_what_was_asked_for_on_average() -> None:
    trades, quotes = play(run_of(rate=20_000.0, symbols=50), 20)

    assert len(trades) + len(quotes) == pytest.approx(400_000, rel=0.03)


def test_arrivals_come_in_bursts() -> None:
    _, quotes = play(run_of(rate=2_000.0), 30)
    counts = np.bincount(((quotes["ts_event_ns"].to_numpy() - START_NS) // SECOND_NS).astype(int))

    assert counts.var() / counts.mean() > 2  # 1 in a Poisson process


def test_activity_falls_off_by_zipf() -> None:
    share = activity_of(50)

    assert share.sum() == pytest.approx(1)
    assert share[0] > 0.2
    assert (np.diff(share) < 0).all()


@pytest.mark.parametrize(
    "change", [{"rate": 0.0}, {"rate": float("nan")}, {"rate": 1e9}, {"symbols": 0}, {"symbols": 10**9}, {"seed": -1}]
)
def test_an_impossible_market_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        run_of(**change)
