"""The API key: read from its file, kept as a digest, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_WITH_ID: Final = re.compile(r"k2_([0-9a-f]{1,16})_\S+")


class ApiKey:
    """Knows the digest of one key. `key_id` is its public part, for the audit log."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)
        named = _WITH_ID.fullmatch(key)
        self.key_id = named[1] if named else "local"

    @classmethod
    def from_file(cls, path: Path) -> ApiKey:
        """Read the key; ConfigurationError if there is none."""
        return cls(read_key(path))

    def accepts(self, key: str | None) -> bool:
        """Say whether `key` is the one; the same work is done for any text."""
        return hmac.compare_digest(self._digest, _digest(key or ""))


def read_key(path: Path) -> str:
    """Return the key that a file holds.

    Raises:
        ConfigurationError: the file is absent, unreadable or empty.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"expected the API key in {path}, found no readable file ({error}): "
            "`k2 up` makes one, or set K2_API__KEY_FILE"
        ) from error
    if not key:
        raise ConfigurationError(f"expected the API key in {path}, found an empty file: write one, or run `k2 up`")
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
