"""Which port each component gets."""

from __future__ import annotations

import socket

import pytest

from k2.common.errors import ConfigurationError
from k2.local.ports import PortBook, is_free


def _book(tmp_path, *, fixed=None, remembered=None, taken=()):
    return PortBook(
        tmp_path / "ports", fixed=fixed or {}, remembered=remembered or {}, free=lambda port: port not in taken
    )


def test_the_usual_port_is_taken_when_it_is_free(tmp_path):
    assert _book(tmp_path).take("kafka") == 9092


def test_a_taken_port_gives_way_to_the_next_one_in_steps(tmp_path):
    assert _book(tmp_path, taken={9092, 9102}).take("kafka") == 9112


def test_the_port_of_the_last_run_comes_first(tmp_path):
    assert _book(tmp_path, remembered={"kafka": 9142}).take("kafka") == 9142


def test_a_remembered_port_that_is_taken_gives_way_to_the_usual_one(tmp_path):
    assert _book(tmp_path, remembered={"kafka": 9142}, taken={9142}).take("kafka") == 9092


def test_two_platforms_that_start_at_once_never_choose_the_same_port(tmp_path):
    first, second = _book(tmp_path), _book(tmp_path)

    assert (first.take("api"), second.take("api")) == (8000, 8010)


def test_a_port_is_given_back_on_close(tmp_path):
    first, second = _book(tmp_path), _book(tmp_path)
    first.take("api")

    first.close()

    assert second.take("api") == 8000


def test_a_port_asked_for_that_is_in_use_is_refused_with_the_remedy(tmp_path):
    book = _book(tmp_path, fixed={"api": 8000}, taken={8000})

    with pytest.raises(ConfigurationError, match=r"port 8000 for api is in use.*--port api=N"):
        book.take("api")


def test_a_port_out_of_range_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="from 1 to 65535"):
        _book(tmp_path, fixed={"api": 70000}).take("api")


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'kafak'.*kafka, kafka-controller"):
        _book(tmp_path, fixed={"kafak": 1})


def test_a_port_lost_to_a_stranger_is_replaced_by_another(tmp_path):
    taken: set[int] = set()
    book = _book(tmp_path, remembered={"kafka": 9092}, taken=taken)
    book.take("kafka")
    taken.add(9092)

    assert book.replace("kafka") == 9102
    assert book.ports() == {"kafka": 9102}


def test_a_listening_socket_makes_its_port_taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])
