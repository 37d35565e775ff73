"""The length of a bar, as people write it: 1s, 5m, 1h, 1d."""

from __future__ import annotations

import re
from typing import Final

from k2.common.errors import QueryError
from k2.common.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND

_UNITS: Final = {"s": NS_PER_SECOND, "m": NS_PER_MINUTE, "h": 60 * NS_PER_MINUTE, "d": NS_PER_DAY}
_TEXT: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")


def interval_ns(text: str) -> int:
    """Return the nanoseconds of an interval from 1s to 1d.

    Raises:
        QueryError: it is none.
    """
    found = _TEXT.fullmatch(text)
    length_ns = int(found[1]) * _UNITS[found[2]] if found else 0
    if not NS_PER_SECOND <= length_ns <= NS_PER_DAY:
        raise QueryError(f"expected an interval from 1s to 1d, such as 30s, 5m or 1h, found {text[:40]!r}")
    return length_ns
