"""A stated share of the decoder's fuzzing: 20,000 hostile messages; `make faults` gives it a million."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.clock import SystemClock
from k2.kafka import avro_blocks
from k2.testing.faults.campaign import FUZZ_JOB_INPUTS, run_fuzz
from k2.testing.faults.fuzzing import fuzz


def test_no_hostile_message_crashes_the_decoder_or_becomes_a_wrong_row() -> None:
    [result] = run_fuzz(1, FUZZ_JOB_INPUTS, processes=1)

    assert result.wrong == ()
    assert result.inputs >= FUZZ_JOB_INPUTS
    assert result.rows > 1_000
    assert {"Undecodable", "NotFramed", "NullValue", "UnknownSchema", "SchemaMismatch"} <= result.bad.keys()


def test_the_comparison_notices_a_decoder_that_reads_a_value_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    read = avro_blocks.BlockReader.read

    def read_wrong(self: avro_blocks.BlockReader, messages: list[bytes]) -> pl.DataFrame | None:
        rows = read(self, messages)
        return None if rows is None else rows.with_columns(pl.col("source_sequence") + 1)

    monkeypatch.setattr(avro_blocks.BlockReader, "read", read_wrong)

    assert fuzz(1, 200, SystemClock()).wrong
