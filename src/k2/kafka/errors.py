"""Turns what librdkafka reports into the errors of K2, by what the caller does next."""

# ruff: noqa: SLF001 - the names of librdkafka's own codes begin with an underscore

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from k2.common.errors import (
    ConfigurationError,
    K2Error,
    LogIdentityError,
    MemberFencedError,
    RecordError,
    UnavailableError,
)

DEPENDENCY: Final = "kafka"

PARTITION_EOF: Final = KafkaError._PARTITION_EOF
AUTO_OFFSET_RESET: Final = KafkaError._AUTO_OFFSET_RESET
OUTAGES: Final = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})
"""No broker can be reached."""
TRANSIENT: Final = OUTAGES | {KafkaError._TRANSPORT, KafkaError._TIMED_OUT}
"""The client tries again by itself."""

_CONFIGURATION: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._CRIT_SYS_RESOURCE,
        KafkaError._INVALID_ARG,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._NOT_IMPLEMENTED,
        KafkaError._UNKNOWN_PROTOCOL,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.SECURITY_DISABLED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    }
)
_RECORD: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG_SIZE,
    }
)
_IDENTITY: Final = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._LOG_TRUNCATION,
    }
)

_ENDS: Final = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID})
_FENCED_MEMBER: Final = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()


def translate(error: KafkaException | KafkaError, doing: str) -> K2Error:
    """Return the error of K2 for `error`, met while `doing` something ("reading market.x")."""
    reason = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(reason, KafkaError):
        return UnavailableError(f"{doing}: {reason}", dependency=DEPENDENCY)
    code, text = reason.code(), f"{doing}: {reason.name()}: {reason.str()}"
    if code in _CONFIGURATION:
        return ConfigurationError(f"{text}; check K2_KAFKA__CLIENT_PROPERTIES and the rights of its user")
    if code in _RECORD:
        return RecordError(f"{text}; the topic's max.message.bytes is the limit")
    if code in _IDENTITY:
        return LogIdentityError(f"{text}; is this the cluster and the topic that the table was built from?")
    if reason.fatal() or code in _ENDS:
        return _the_end(reason, text)
    return UnavailableError(
        f"{text}; is the broker of K2_KAFKA__BOOTSTRAP_SERVERS up? (`k2 status`)", dependency=DEPENDENCY
    )


def _the_end(reason: KafkaError, text: str) -> K2Error:
    """Return the error for a client that cannot go on; librdkafka may name the cause in the text alone."""
    if reason.code() == KafkaError.FENCED_INSTANCE_ID or _FENCED_MEMBER in reason.str():
        return MemberFencedError(
            f"{text}; another process has joined the group under the same member id: give each worker its own "
            "(`k2 ingest --member-id`, K2_INGESTION__MEMBER_ID), or none"
        )
    return UnavailableError(f"{text}; this client cannot go on, make a new one", dependency=DEPENDENCY)
