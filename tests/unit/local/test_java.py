"""Java's command lines and ahead-of-time caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.local.java import AotCache, JavaProgram, JavaRuntime, command

JAVA = JavaRuntime(Path("/jre/bin/java"), "25.0.2")
PROGRAM = JavaProgram(("-Xmx1m",), (Path("/a b/x.jar"), Path("/y.jar")), "Main", ('say "hi"',))


@pytest.fixture
def cache(tmp_path):
    cache = AotCache(tmp_path / "aot", "kafka", JAVA, PROGRAM)
    (option, *_) = cache.train_options()
    Path(option.partition("=")[2]).write_bytes(b"cache")
    return cache


def test_the_long_part_of_a_command_is_in_a_file_with_every_word_quoted(tmp_path):
    words = command(JAVA, PROGRAM, tmp_path / "args", cache_options=["-XX:Y"])

    assert words == ["/jre/bin/java", f"@{tmp_path / 'args'}"]
    assert (tmp_path / "args").read_text().splitlines() == [
        '"-XX:Y"', '"-Xmx1m"', '"-cp"', '"/a b/x.jar:/y.jar"', '"Main"', '"say \\"hi\\""',
    ]  # fmt: skip


def test_a_cache_is_used_once_it_was_written_whole(cache):
    before = cache.use_options()

    cache.publish()

    assert before == ()
    assert cache.use_options()[0] == f"-XX:AOTCache={cache.path}"


@pytest.mark.parametrize("content", [b"cachf", b"cac", b""])
def test_a_damaged_cache_is_deleted_and_not_used(cache, content):
    cache.publish()
    cache.path.write_bytes(content)

    assert cache.use_options() == ()
    assert not cache.exists()


def test_a_cache_of_other_options_is_another_cache(tmp_path, cache):
    other = JavaProgram(("-Xmx2m",), PROGRAM.class_path, PROGRAM.main)

    assert AotCache(tmp_path / "aot", "kafka", JAVA, other).path != cache.path


def test_a_training_run_that_wrote_nothing_publishes_nothing(tmp_path):
    cache = AotCache(tmp_path / "aot", "kafka", JAVA, PROGRAM)

    assert not cache.publish()
    assert not cache.exists()
