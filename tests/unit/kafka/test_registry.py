"""What the registry's answers mean: a schema, a bad record, a wrong setting, or a pause."""

from __future__ import annotations

import json

import httpx2
import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.kafka.registry import CachedSchemas, SchemaRegistry, UnknownSchemaError
from k2.kafka.settings import KafkaSettings
from k2.testing.fake_log import FakeRegistry


class Server:
    """Answers by path, or with one status; keeps what was asked."""

    def __init__(self, answers: dict[str, tuple[int, object]]) -> None:
        self.answers = answers
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status, body = self.answers.get(f"{request.method} {request.url.path}", (404, {"message": "not found"}))
        return httpx2.Response(status, json=body)


def registry_of(answers, **settings) -> tuple[SchemaRegistry, Server]:
    server = Server(answers)
    config = KafkaSettings(registry_url="http://registry.test/api/", **settings)
    return SchemaRegistry(config, transport=httpx2.MockTransport(server)), server


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_registry_in_trouble_is_a_pause_and_never_a_bad_record(status) -> None:
    registry, _ = registry_of({"GET /api/schemas/ids/5": (status, {"message": "busy"})})

    with pytest.raises(UnavailableError, match=f"answers {status} .busy") as raised:
        registry.schema_text(5)
    assert raised.value.dependency == "schema registry"


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_id_that_the_registry_does_not_know_is_a_bad_record(status) -> None:
    registry, _ = registry_of({"GET /api/schemas/ids/5": (status, {"message": "no schema 5"})})

    with pytest.raises(UnknownSchemaError, match="no schema 5"):
        registry.schema_text(5)


@pytest.mark.parametrize("schema_id", [0, -1, 2**31])
def test_an_impossible_id_is_not_asked_for(schema_id) -> None:
    registry, server = registry_of({})

    with pytest.raises(UnknownSchemaError):
        registry.schema_text(schema_id)
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_user_is_a_wrong_setting(status) -> None:
    registry, _ = registry_of({"GET /api/schemas/ids/5": (status, {})})

    with pytest.raises(ConfigurationError, match="K2_KAFKA__REGISTRY_USER"):
        registry.schema_text(5)


def test_a_registry_that_is_not_there_is_a_pause() -> None:
    registry = SchemaRegistry(KafkaSettings(registry_url="http://127.0.0.1:1/x", request_timeout_seconds=1))

    with pytest.raises(UnavailableError, match="K2_KAFKA__REGISTRY_URL"):
        registry.schema_text(5)


def test_a_body_that_is_no_json_does_not_hide_the_status() -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(503, text="<html>"))
    registry = SchemaRegistry(KafkaSettings(registry_url="http://registry.test"), transport=transport)

    with pytest.raises(UnavailableError, match="HTTP 503"):
        registry.subjects()


def test_user_and_password_are_sent() -> None:
    registry, server = registry_of({"GET /api/subjects": (200, [])}, registry_user="u", registry_password="p")

    registry.subjects()

    assert server.requests[0].headers["authorization"].startswith("Basic ")


def test_a_subject_without_a_rule_gets_the_transitive_one_once() -> None:
    registry, server = registry_of({"PUT /api/config/s": (200, {}), "POST /api/subjects/s/versions": (200, {"id": 3})})

    assert [registry.register("s", '"string"') for _ in range(2)] == [3, 3]

    assert [request.method for request in server.requests] == ["GET", "PUT", "POST", "POST"]
    assert json.loads(server.requests[1].content) == {"compatibility": "BACKWARD_TRANSITIVE"}


def test_a_rule_that_someone_set_stays() -> None:
    registry, server = registry_of(
        {"GET /api/config/s": (200, {"compatibilityLevel": "FULL"}), "POST /api/subjects/s/versions": (200, {"id": 3})}
    )

    registry.register("s", '"string"')

    assert [request.method for request in server.requests] == ["GET", "POST"]


def test_an_incompatible_schema_is_refused_with_the_registrys_words() -> None:
    registry, _ = registry_of(
        {
            "GET /api/config/s": (200, {"compatibilityLevel": "FULL"}),
            "POST /api/subjects/s/versions": (409, {"message": "field x has no default"}),
        }
    )

    with pytest.raises(ConfigurationError, match="field x has no default"):
        registry.register("s", '"string"')


def test_the_general_rule_is_set_and_read() -> None:
    registry, server = registry_of(
        {"PUT /api/config": (200, {}), "GET /api/config": (200, {"compatibilityLevel": "NONE"})}
    )

    registry.set_compatibility(None, "BACKWARD")

    assert registry.compatibility() == "NONE"
    assert json.loads(server.requests[0].content) == {"compatibility": "BACKWARD"}


def test_a_rule_that_another_process_sets_in_between_stands() -> None:
    server = Server({"POST /api/subjects/s/versions": (200, {"id": 3})})

    def refuse(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            server.answers["GET /api/config/s"] = (200, {"compatibilityLevel": "BACKWARD_TRANSITIVE"})
            return httpx2.Response(409, json={"message": "a rule already exists"})
        return server(request)

    settings = KafkaSettings(registry_url="http://registry.test/api/")
    registry = SchemaRegistry(settings, transport=httpx2.MockTransport(refuse))

    assert registry.register("s", '"string"') == 3


def test_a_first_rule_that_is_refused_is_an_error() -> None:
    registry, _ = registry_of({"PUT /api/config/s": (422, {"message": "no such level"})})

    with pytest.raises(ConfigurationError, match="no such level"):
        registry.register("s", '"string"')


def test_a_refused_rule_is_an_error() -> None:
    registry, _ = registry_of({"PUT /api/config": (422, {"message": "no such level"})})

    with pytest.raises(ConfigurationError, match="no such level"):
        registry.set_compatibility(None, "BACKWARD")


# The cache.


def test_what_the_table_has_recorded_is_used_before_the_registry() -> None:
    registry = FakeRegistry({1: "of the registry"})
    schemas = CachedSchemas(registry, {1: "of the table"}, entries_max=100)

    assert schemas.schema_text(1) == "of the table"
    assert registry.asked == []
    assert schemas.newly_met == {}


def test_a_new_id_is_asked_for_once_and_reported_until_it_is_recorded() -> None:
    registry = FakeRegistry({1: "one"})
    schemas = CachedSchemas(registry, {}, entries_max=100)

    texts = [schemas.schema_text(1) for _ in range(2)]
    met = schemas.newly_met
    schemas.recorded(met)

    assert texts == ["one", "one"]
    assert registry.asked == [1]
    assert met == {1: "one"}
    assert schemas.newly_met == {}
    assert schemas.schema_text(1) == "one"


def test_what_another_writer_recorded_is_not_reported_again() -> None:
    registry = FakeRegistry({1: "one"})
    schemas = CachedSchemas(registry, {}, entries_max=100)
    schemas.schema_text(1)

    schemas.learn({1: "one"})

    assert schemas.newly_met == {}


def test_the_cache_holds_no_more_than_allowed() -> None:
    registry = FakeRegistry({number: str(number) for number in range(1, 6)})
    schemas = CachedSchemas(registry, {}, entries_max=2)

    for number in range(1, 6):
        schemas.schema_text(number)

    assert set(schemas.newly_met) == {4, 5}


def test_an_unknown_id_is_asked_for_again() -> None:
    registry = FakeRegistry({})
    schemas = CachedSchemas(registry, {}, entries_max=100)

    for _ in range(2):
        with pytest.raises(UnknownSchemaError):
            schemas.schema_text(9)

    assert registry.asked == [9, 9]
