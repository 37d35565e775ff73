"""Speaks the Confluent REST API of a schema registry."""

from __future__ import annotations

import threading
from collections import OrderedDict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import quote

import httpx2

from k2.common.errors import ConfigurationError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k2.kafka.settings import KafkaSettings

DEPENDENCY: Final = "schema registry"
SCHEMA_ID_MAX: Final = 2**31 - 1
_JSON: Final = "application/vnd.schemaregistry.v1+json"
_BUSY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Compatibility = Literal[
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"
]


COMPATIBILITY: Final[Compatibility] = "BACKWARD_TRANSITIVE"


class UnknownSchemaError(RecordError):
    """The registry answers, and has no schema of this id."""


class SchemaSource(Protocol):
    """Where the text of a schema comes from."""

    def schema_text(self, schema_id: int) -> str:
        """Return the text; UnknownSchemaError if there is none, UnavailableError if that cannot be known now."""
        ...


class SchemaRegistry:
    """One registry. Safe to share between threads."""

    def __init__(self, settings: KafkaSettings, *, transport: httpx2.BaseTransport | None = None) -> None:
        auth = None
        if settings.registry_user is not None:
            password = settings.registry_password
            auth = httpx2.BasicAuth(settings.registry_user, password.get_secret_value() if password else "")
        self._ruled: set[str] = set()
        self._url = settings.registry
        self._client = httpx2.Client(
            timeout=settings.request_timeout_seconds, auth=auth, headers={"Content-Type": _JSON}, transport=transport
        )

    def register(self, subject: str, schema_text: str) -> int:
        """Return the id of the schema under `subject`, registered if it is new.

        A subject without a rule of its own gets BACKWARD_TRANSITIVE first: K2 reads all that was ever written.

        Raises:
            ConfigurationError: the schema is not compatible with the earlier ones, or is no schema.
            UnavailableError: the registry is down or busy.
        """
        if subject not in self._ruled:
            if self.compatibility(subject) is None:
                self._set_first_rule(subject)
            self._ruled.add(subject)
        path = f"/subjects/{quote(subject, safe='')}/versions"
        answer = self._ask("POST", path, {"schema": schema_text, "schemaType": "AVRO"})
        if answer.status_code == HTTPStatus.OK:
            return int(answer.json()["id"])
        raise ConfigurationError(
            f"expected a schema that readers of the earlier ones of {subject} can take, found one that the registry "
            f"refuses ({_message(answer)}): only add fields that have a default"
        )

    def schema_text(self, schema_id: int) -> str:
        """Return the text of the schema.

        Raises:
            UnknownSchemaError: the registry has none of this id.
            UnavailableError: the registry is down or busy.
        """
        if not 0 < schema_id <= SCHEMA_ID_MAX:
            raise UnknownSchemaError(f"expected a schema id from 1 to {SCHEMA_ID_MAX}, found {schema_id}")
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer.status_code == HTTPStatus.OK:
            return str(answer.json()["schema"])
        raise UnknownSchemaError(
            f"expected a schema id that the registry knows, found {schema_id} ({_message(answer)})"
        )

    schema = schema_text

    def set_compatibility(self, subject: str | None, level: Compatibility) -> None:
        """Set what a new schema must be compatible with: of `subject`, or of all that have no rule (None)."""
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}"
        answer = self._ask("PUT", path, {"compatibility": level})
        if answer.status_code != HTTPStatus.OK:
            raise ConfigurationError(f"the registry refuses the compatibility rule {level}: {_message(answer)}")

    def _set_first_rule(self, subject: str) -> None:
        try:
            self.set_compatibility(subject, COMPATIBILITY)
        except ConfigurationError:
            if self.compatibility(subject) is None:  # else another process has set one in between, which stands
                raise

    def compatibility(self, subject: str | None = None) -> str | None:
        """Return the rule of `subject`, or the general one (None); None where none is set."""
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}"
        answer = self._ask("GET", path)
        return str(answer.json()["compatibilityLevel"]) if answer.status_code == HTTPStatus.OK else None

    def subjects(self) -> list[str]:
        """Return the names of all subjects; the cheapest call that proves that the registry works."""
        answer = self._ask("GET", "/subjects")
        if answer.status_code != HTTPStatus.OK:
            raise UnavailableError(f"the registry at {self._url} says: {_message(answer)}", dependency=DEPENDENCY)
        return [str(subject) for subject in answer.json()]

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> httpx2.Response:
        try:
            answer = self._client.request(method, self._url + path, json=body)
        except httpx2.HTTPError as error:
            raise UnavailableError(
                f"no answer from the schema registry at {self._url} ({error}); is K2_KAFKA__REGISTRY_URL right, and "
                "the registry up? (`k2 status`)",
                dependency=DEPENDENCY,
            ) from error
        if answer.status_code in _REFUSED:
            raise ConfigurationError(
                f"the registry at {self._url} refuses K2's user ({answer.status_code}): set K2_KAFKA__REGISTRY_USER "
                "and K2_KAFKA__REGISTRY_PASSWORD"
            )
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code in _BUSY:
            raise UnavailableError(
                f"the schema registry at {self._url} answers {answer.status_code} ({_message(answer)})",
                dependency=DEPENDENCY,
            )
        return answer


class CachedSchemas:
    """Schemas by id: those that a table has recorded first, the registry only for the rest.

    `known` is what the table holds; it is never evicted. Of the others at most `entries_max` are kept.
    """

    def __init__(self, registry: SchemaSource, known: Mapping[int, str], *, entries_max: int) -> None:
        self._registry = registry
        self._known = dict(known)
        self._met: OrderedDict[int, str] = OrderedDict()
        self._entries_max = entries_max
        self._lock = threading.Lock()

    @property
    def newly_met(self) -> dict[int, str]:
        """Schemas that the registry gave and that are not recorded yet."""
        with self._lock:
            return dict(self._met)

    def recorded(self, schema_ids: Iterable[int]) -> None:
        """Take note that the table holds these now."""
        with self._lock:
            for schema_id in schema_ids:
                text = self._met.pop(schema_id, None)
                if text is not None:
                    self._known[schema_id] = text

    def learn(self, known: Mapping[int, str]) -> None:
        """Take schemas that the table's head holds, which another writer may have recorded."""
        with self._lock:
            self._known.update(known)
            for schema_id in known:
                self._met.pop(schema_id, None)

    def schema_text(self, schema_id: int) -> str:
        """Return the text; UnknownSchemaError if there is none, UnavailableError if that cannot be known now."""
        with self._lock:
            text = self._known.get(schema_id) or self._met.get(schema_id)
        if text is not None:
            return text
        text = self._registry.schema_text(schema_id)
        with self._lock:
            self._met[schema_id] = text
            while len(self._met) > self._entries_max:
                self._met.popitem(last=False)
        return text


def _message(answer: httpx2.Response) -> str:
    try:
        body: Any = answer.json()  # Any: whatever the server says
    except ValueError:
        return f"HTTP {answer.status_code}"
    text = body.get("message") if isinstance(body, dict) else None
    return str(text or f"HTTP {answer.status_code}")[:500]
