"""Each catalog and store by settings alone, from commit to answer, by the variables of docs/operations/catalogs.md."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

from k2 import bootstrap
from k2.common.errors import ConfigurationError, CorruptionError, QueryError, UnavailableError
from k2.query.request import QueryRequest
from k2.settings import Settings, load_settings, variable_name
from k2.storage.settings import CatalogSettings
from k2.testing.local_lake import LocalLake
from k2.testing.services.places import Services

GUIDE = Path(__file__).parents[2] / "docs/operations/catalogs.md"
AAA = QueryRequest(data_type="trades", symbol="AAA", lake_only=True)


def variables(place: dict[str, str]) -> dict[str, str]:
    return {variable_name(("catalog", name)): value for name, value in place.items()}


def settings_of(place: dict[str, str], directory: Path) -> Settings:
    return load_settings(directory, environ=variables(place))


def committed(place: dict[str, str], directory: Path) -> Settings:
    lake = LocalLake(directory, **place).create()
    lake.commit("b1", 0, 6)
    lake.close()
    return settings_of(place, directory)


@pytest.fixture
def s3_place(services: Services, tmp_path: Path) -> dict[str, str]:
    return {"uri": f"sqlite:///{tmp_path}/catalog.db", **services.warehouse_in_s3()}


def test_what_is_committed_is_answered_and_seen_by_sql(place: dict[str, str], tmp_path: Path) -> None:
    settings = committed(place, tmp_path)

    with bootstrap.lake_engine(settings) as engine:
        answer = engine.query(AAA)
    with bootstrap.table_sql(settings) as sql:
        counted = sql("SELECT count(*) AS n FROM trades").to_pylist()

    assert answer.table["log_offset"].to_pylist() == [0, 3]
    assert answer.certificate.complete
    assert counted == [{"n": 6}]


def test_the_tables_are_made_by_settings_alone_and_a_second_start_changes_nothing(
    place: dict[str, str], tmp_path: Path
) -> None:
    settings = settings_of(place, tmp_path)

    first, second = bootstrap.market_tables(settings), bootstrap.market_tables(settings)

    assert first.load("trades").metadata.table_uuid == second.load("trades").metadata.table_uuid
    first.close()
    second.close()


def test_the_guide_names_every_variable_and_no_other(place: dict[str, str]) -> None:
    named = set(re.findall(r"K2_CATALOG__[A-Z0-9_]+", GUIDE.read_text(encoding="utf-8")))
    known = {variable_name(("catalog", name)) for name in CatalogSettings.model_fields}

    assert set(variables(place)) <= named <= known


@pytest.mark.platform
def test_sql_reaches_nothing_of_the_store_but_the_warehouse(s3_place: dict[str, str], tmp_path: Path) -> None:
    settings = committed(s3_place, tmp_path)
    outside = s3_place["warehouse"] + "-other/x.parquet"

    with bootstrap.table_sql(settings) as sql, pytest.raises(QueryError, match="disabled by configuration"):
        sql(f"SELECT * FROM read_parquet('{outside}')")


@pytest.mark.platform
def test_the_secret_of_the_store_is_nowhere_to_be_read(s3_place: dict[str, str], tmp_path: Path) -> None:
    settings = committed(s3_place, tmp_path)
    secret = s3_place["s3_secret_access_key"]

    with bootstrap.table_sql(settings) as sql:
        shown = [
            str(sql("SELECT * FROM duckdb_secrets()").to_pylist()),
            str(sql("SELECT * FROM duckdb_settings()").to_pylist()),
            repr(settings),
        ]

    assert not [text for text in shown if secret in text]


@pytest.mark.platform
def test_a_data_file_that_is_gone_is_named_and_one_out_of_reach_is_not_called_damaged(
    s3_place: dict[str, str], services: Services, tmp_path: Path
) -> None:
    settings = committed(s3_place, tmp_path)
    nobody_there = settings_of({**s3_place, "s3_endpoint": "http://127.0.0.1:9"}, tmp_path)
    tables = bootstrap.market_tables(settings)
    pinned = bootstrap.planner(settings, tables).pin("trades")
    path = pinned.manifests[0].files[0].file.path

    with bootstrap.scanner(nobody_there, tables) as unreachable, pytest.raises(UnavailableError):
        unreachable.fetch("SELECT * FROM read_parquet($files)", {"files": [path]})
    tables.load("trades").io.delete(path)
    with bootstrap.scanner(settings, tables) as files, pytest.raises(CorruptionError, match=re.escape(path)):
        files.fetch("SELECT * FROM read_parquet($files)", {"files": [path]})
    tables.close()


def test_a_store_without_a_key_says_what_to_set(tmp_path: Path) -> None:
    settings = settings_of({"warehouse": "s3://bucket/prefix", "uri": f"sqlite:///{tmp_path}/c.db"}, tmp_path)

    with pytest.raises(ConfigurationError, match="K2_CATALOG__S3_ACCESS_KEY_ID"):
        bootstrap.scanner(settings, tables=None)  # type: ignore[arg-type]  # an SQL catalog's are not asked


def test_a_store_without_the_extension_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.query.object_store._PACKAGE", "not_installed_here")
    key = {"s3_access_key_id": "a", "s3_secret_access_key": "b"}
    settings = settings_of({"warehouse": "s3://bucket/prefix", "uri": f"sqlite:///{tmp_path}/c.db", **key}, tmp_path)

    with pytest.raises(ConfigurationError, match="duckdb-extension-httpfs"):
        bootstrap.scanner(settings, tables=None)  # type: ignore[arg-type]  # an SQL catalog's are not asked


def test_a_warehouse_of_another_kind_is_refused(tmp_path: Path) -> None:
    settings = settings_of({"warehouse": "gs://bucket/prefix", "uri": f"sqlite:///{tmp_path}/c.db"}, tmp_path)

    with pytest.raises(ConfigurationError, match="local files or in S3"):
        bootstrap.scanner(settings, tables=None)  # type: ignore[arg-type]  # an SQL catalog's are not asked


@pytest.mark.platform
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pg8000 leaves the refused socket open
def test_a_wrong_password_is_a_refusal_and_is_not_told(services: Services, tmp_path: Path) -> None:
    uri = services.postgres.uri().replace("sesame", "guessed")

    with pytest.raises(ConfigurationError, match="password authentication failed") as caught:
        bootstrap.market_tables(settings_of({"uri": uri}, tmp_path))

    assert "guessed" not in str(caught.value)
    del caught
    gc.collect()
