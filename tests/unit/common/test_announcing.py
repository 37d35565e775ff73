"""Announcements and drill requests as the values of messages."""

import json

import pytest

from k2.common.announcing import DrillRequest, LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import RecordError

SAID = LevelAnnouncement("w-1", DegradationLevel.GRACEFUL, "lag", 5, 9, 600_000, 1.5, 42.0, 7, drill=True)


def test_an_announcement_comes_back_as_it_was_said() -> None:
    assert LevelAnnouncement.from_json(SAID.to_json()) == SAID


def test_a_request_comes_back_as_it_was_made() -> None:
    request = DrillRequest(DegradationLevel.SOFT, 100, 50, "ops", 0.25, 400.0, "a rehearsal")

    assert DrillRequest.from_json(request.to_json()) == request


def test_a_request_of_an_earlier_version_is_read() -> None:
    value = b'{"level": 1, "until_ns": 100, "requested_at_ns": 50, "requested_by": "ops"}'

    assert DrillRequest.from_json(value) == DrillRequest(DegradationLevel.SOFT, 100, 50, "ops")


@pytest.mark.parametrize(("field", "value"), [("until_ns", "soon"), ("until_ns", True), ("requested_by", 7)])
def test_a_value_of_another_type_is_refused_by_name(field: str, value: object) -> None:
    request = json.loads(DrillRequest(DegradationLevel.SOFT, 100, 50, "ops").to_json())

    with pytest.raises(RecordError, match="DrillRequest"):
        DrillRequest.from_json(json.dumps({**request, field: value}).encode())


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = json.dumps({**json.loads(SAID.to_json()), "mood": "calm"}).encode()

    assert LevelAnnouncement.from_json(later) == SAID


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"level": 9}', b'{"level": 1}'])
def test_other_bytes_are_refused_by_name(value: bytes) -> None:
    with pytest.raises(RecordError, match="LevelAnnouncement"):
        LevelAnnouncement.from_json(value)
