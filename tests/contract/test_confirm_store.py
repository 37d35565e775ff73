"""What every confirm store does: the fake and the real Valkey pass the same tests."""

from __future__ import annotations

import random
import uuid

import pytest
import valkey

from k2.common.errors import UnavailableError
from k2.ingestion.duplicates.confirm_store import RedisConfirmStore
from k2.testing.fake_confirm_store import FakeConfirmStore

LENGTH_MS = 21_600_000
FIRST, SECOND = 5_000, 5_001


@pytest.fixture(params=["fake", pytest.param("valkey", marks=pytest.mark.platform)])
def client(request):
    if request.param == "fake":
        yield None
        return
    client = valkey.Valkey.from_url(request.getfixturevalue("valkey_url"))
    yield client
    client.close()


@pytest.fixture
def namespace():
    return f"t:{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(client, namespace):
    return FakeConfirmStore() if client is None else real(client, namespace)


def real(client, namespace):
    return RedisConfirmStore(client, namespace=namespace, ids_per_generation=20_000, length_ms=LENGTH_MS)


def saved_by(store, client, namespace):
    if client is None:
        return store.copy()
    return {key: client.dump(key) for key in client.scan_iter(f"{namespace}*")}


def put_back(store, client, namespace, saved):
    if client is None:
        store.put_back(saved)
        return
    client.delete(*client.scan_iter(f"{namespace}*"))
    for key, value in saved.items():
        client.restore(key, 0, value)


def at(generation: int, ms: int) -> int:
    return generation * LENGTH_MS + ms


def test_what_was_remembered_is_recalled_with_its_time_and_offset(store):
    store.remember(FIRST, at(FIRST, 1_000), {1: 0, 2: 7, 2**64 - 1: 2**40, 3: None})

    found = store.recall([FIRST], [2, 2**64 - 1, 1, 3, 4])

    assert [None if each is None else each.offset for each in found] == [7, 2**40, 0, None, None]
    assert all(each is None or 0 <= each.log_time_ms - at(FIRST, 1_000) <= 2 for each in found)


def test_the_last_moment_of_a_generation_fits(store):
    store.remember(FIRST, at(SECOND, 0) - 1, {1: 5})

    (found,) = store.recall([FIRST], [1])

    assert found is not None
    assert abs(found.log_time_ms - at(SECOND, 0)) <= 2


def test_the_newest_generation_answers_first(store):
    store.remember(FIRST, at(FIRST, 0), {1: 1})
    store.remember(SECOND, at(SECOND, 0), {1: 2})

    found = store.recall([FIRST, SECOND], [1]), store.recall([FIRST], [1])

    assert [each and each.offset for (each,) in found] == [2, 1]


def test_many_ids_are_told_apart_and_given_back(store):
    drawn = random.Random(3)
    ids = {drawn.getrandbits(64): number for number in range(20_000)}
    store.remember(FIRST, at(FIRST, 5), ids)

    found = store.recall([FIRST], list(ids))
    absent = store.recall([FIRST], [drawn.getrandbits(64) for _ in range(1_000)])
    given = [fingerprint for part in store.fingerprints(FIRST) for fingerprint in part]

    assert [each.offset for each in found] == list(range(20_000))
    assert absent == [None] * 1_000
    assert sorted(given) == sorted(ids)


def test_a_generation_is_forgotten_alone(store):
    store.remember(FIRST, at(FIRST, 0), {1: 1})
    store.remember(SECOND, at(SECOND, 0), {2: 2})
    before = store.generations()
    store.forget(FIRST)

    assert (before, store.generations()) == ((FIRST, SECOND), (SECOND,))
    assert store.recall([FIRST, SECOND], [1]) == [None]
    assert store.recall([FIRST, SECOND], [2]) != [None]


def test_the_mark_is_set_once_and_gone_after_clear(store):
    seen = [store.is_attached(), store.attach(), store.attach(), store.is_attached()]
    store.remember(FIRST, at(FIRST, 0), {1: 1})
    store.clear()

    assert seen == [False, False, True, True]
    assert not store.is_attached()
    assert store.generations() == ()
    assert store.recall([FIRST], [1]) == [None]


def test_a_store_that_came_back_with_an_older_copy_is_not_attached_until_it_is_marked_anew(store, client, namespace):
    store.attach()
    store.remember(FIRST, at(FIRST, 0), {1: 1})
    saved = saved_by(store, client, namespace)
    store.remember(FIRST, at(FIRST, 5), {2: 2})
    before = store.is_attached()

    put_back(store, client, namespace, saved)
    after = [store.is_attached()]
    store.remember(FIRST, at(FIRST, 9), {3: 3})
    after.append(store.is_attached())

    assert (before, after) == (True, [False, False])
    assert (store.attach(), store.is_attached()) == (False, True)


@pytest.mark.parametrize("client", [pytest.param("valkey", marks=pytest.mark.platform)], indirect=True)
def test_a_store_that_was_flushed_and_marked_by_another_is_another(client, namespace):
    store = real(client, namespace)
    store.attach()
    store.remember(FIRST, at(FIRST, 0), {1: 1})
    store.clear()
    other = real(client, namespace)
    other.attach()
    for offset in range(5):
        other.remember(FIRST, at(FIRST, 0), {1: offset})

    assert (other.is_attached(), store.is_attached()) == (True, False)


def test_nothing_listening_is_an_outage():
    store = RedisConfirmStore(
        valkey.Valkey(port=1, socket_timeout=1), namespace="t", ids_per_generation=100, length_ms=LENGTH_MS
    )

    with pytest.raises(UnavailableError):
        store.recall([FIRST], [1])
