"""The commands that start K2's own processes."""

from __future__ import annotations

from k2.local.component import Site
from k2.local.k2_component import api, worker
from k2.local.layout import DataDirectory


def _words(component, root, port=9308):
    return component.command(Site(DataDirectory.at(root), {component.port_names[0]: port})).words


def _member_id(words):
    return words[words.index("--member-id") + 1]


def test_a_platforms_worker_has_the_same_member_id_at_every_start(tmp_path):
    first, again = _words(worker(), tmp_path / "a"), _words(worker(), tmp_path / "a", port=9400)

    assert _member_id(first) == _member_id(again)


def test_two_platforms_workers_have_different_member_ids(tmp_path):
    assert _member_id(_words(worker(), tmp_path / "a")) != _member_id(_words(worker(), tmp_path / "b"))


def test_only_the_worker_is_a_member_of_a_group(tmp_path):
    assert "--member-id" not in _words(api(), tmp_path)
