"""What a symbol may be: one rule for the log's records, for reference data and for questions."""

from __future__ import annotations

import unicodedata
from typing import Final

SYMBOL_BYTES_MAX: Final = 64
CONTROL_CHARACTERS: Final = r"\p{Cc}"
"""As a regular expression; `is_symbol` means the same characters."""
SYMBOL_RULE: Final = f"a symbol of 1 to {SYMBOL_BYTES_MAX} bytes without control characters"


def is_symbol(text: str) -> bool:
    """Say whether a text may be a symbol."""
    size = len(text.encode(errors="replace"))
    return 0 < size <= SYMBOL_BYTES_MAX and not any(unicodedata.category(character) == "Cc" for character in text)
