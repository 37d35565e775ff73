"""Every error of the client libraries becomes one of K2's, by what the caller does next."""

from __future__ import annotations

import inspect

import confluent_kafka
import confluent_kafka.error
import httpx2
import pytest
from confluent_kafka import KafkaError, KafkaException

from k2.common.errors import (
    ConfigurationError,
    K2Error,
    LogIdentityError,
    MemberFencedError,
    RecordError,
    UnavailableError,
)
from k2.kafka.errors import translate

CODES = {
    name: value for name, value in vars(KafkaError).items() if name.lstrip("_").isupper() and isinstance(value, int)
}
KNOWN_EXCEPTIONS = {
    "KafkaException",
    # the base of the first, and what only a wrong use of a client by the program raises
    "_KafkaClientError", "ConcurrentModificationException", "IllegalStateException",
    # raised by the serializers and consumers of confluent_kafka that K2 does not use
    "ConsumeError", "SerializationError", "ProduceError", "KeyDeserializationError", "ValueDeserializationError",
    "KeySerializationError", "ValueSerializationError",
}  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError.FENCED_INSTANCE_ID),
        KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.FENCED_INSTANCE_ID).str()}"),
    ],
)
def test_a_member_whose_place_was_taken_is_told_what_to_do(error) -> None:
    translated = translate(error, "reading")

    assert isinstance(translated, MemberFencedError)
    assert "--member-id" in str(translated)


def test_another_fatal_error_asks_for_a_new_client() -> None:
    translated = translate(KafkaError(KafkaError._FATAL, "out of luck"), "reading")

    assert isinstance(translated, UnavailableError)
    assert "make a new one" in str(translated)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_every_code_has_an_error_with_text_and_what_to_do(code) -> None:
    error = translate(KafkaException(KafkaError(code)), "reading market.x")

    assert isinstance(error, K2Error)
    assert "reading market.x: " in str(error)
    assert "; " in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._ALL_BROKERS_DOWN, UnavailableError),
        (KafkaError._TIMED_OUT, UnavailableError),
        (KafkaError.NOT_LEADER_FOR_PARTITION, UnavailableError),
        (KafkaError._AUTHENTICATION, ConfigurationError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigurationError),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordError),
        (KafkaError.OFFSET_OUT_OF_RANGE, LogIdentityError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, LogIdentityError),
        (KafkaError._AUTO_OFFSET_RESET, LogIdentityError),
    ],
)
def test_codes_are_split_by_what_the_caller_does_next(code, kind) -> None:
    assert type(translate(KafkaError(code), "x")) is kind


def test_a_fatal_error_says_that_the_client_is_lost() -> None:
    error = translate(KafkaError(KafkaError._FATAL, "x", fatal=True), "writing")

    assert isinstance(error, UnavailableError)
    assert "make a new one" in str(error)


def test_a_reason_that_is_no_kafka_error_is_an_outage() -> None:
    assert isinstance(translate(KafkaException("boom"), "reading"), UnavailableError)


def test_the_library_has_no_exception_that_nobody_thought_of() -> None:
    found = {
        name
        for module in (confluent_kafka, confluent_kafka.error)
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception)
    }

    assert found <= KNOWN_EXCEPTIONS


def test_every_error_of_the_http_client_has_the_one_base_that_is_caught() -> None:
    raised_by_requests = {
        value
        for _, value in inspect.getmembers(httpx2, inspect.isclass)
        if issubclass(value, httpx2.TransportError | httpx2.DecodingError | httpx2.TooManyRedirects)
    }

    assert raised_by_requests
    assert all(issubclass(value, httpx2.HTTPError) for value in raised_by_requests)
