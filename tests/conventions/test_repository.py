"""What the repository promises as a whole: packaging, documents, lock file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel_file)


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(target),
        ".",
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; what K2 depends on comes from the environment of the tests."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "env", symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "env/bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel_file)], check=True)
    for path in site_of(Path(sys.prefix)).glob("*"):
        if not path.name.startswith(("k2", "_editable_impl_k2")) and path.suffix != ".pth":
            (site_of(home / "env") / path.name).symlink_to(path)
    return home


def site_of(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))


def run_elsewhere(home: Path, *words: str) -> str:
    environment = {"PATH": os.defpath, "HOME": str(home), "K2_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    command = [str(home / "env/bin" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_wheel_carries_all_that_k2_needs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())

    expected = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "k2").rglob("*.py")}
    assert expected <= names
    assert {"k2/config/topics.yaml", "k2/py.typed"} <= names
    assert any(name.startswith("k2/local/") and name.endswith((".toml", ".json")) for name in names)


def test_the_wheel_runs_without_a_clone(elsewhere: Path) -> None:
    version = run_elsewhere(elsewhere, "k2", "--version")
    usage = run_elsewhere(elsewhere, "k2", "topics", "--help")

    assert version.startswith("k2 ")
    assert "topics.yaml" in usage


def test_the_wheel_finds_its_topics_and_the_components_lock(elsewhere: Path) -> None:
    program = """
import k2
from k2.kafka.topics import TopicCatalog
from k2.local.artifacts import locked_components
print(k2.__file__, len(TopicCatalog.load().market_topics), *sorted(locked_components()))
"""

    place, topics, *components = run_elsewhere(elsewhere, "python", "-c", program).split()

    assert Path(place).is_relative_to(elsewhere)
    assert int(topics) >= 10
    assert components == ["kafka", "registry"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]

    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_lock_files_carry_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text()

    assert "--hash=sha256:" in lock
    assert "://" not in lock


def test_no_file_names_a_path_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.$~])/(?:root|work|home/\w+)/\w")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match}" for match in pattern.findall(text)]

    assert found == []


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()

    pages = [path.name for path in (ROOT / "docs" / "decisions").glob("0*.md")]
    assert [page for page in pages if page not in index] == []


def test_all_tests_of_real_servers_are_where_one_process_runs_them(servers_elsewhere: list[str]) -> None:
    assert servers_elsewhere == [], "name their folder or file in SERVERS of tests/conftest.py"
