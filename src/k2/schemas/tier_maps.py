"""Tier maps: which symbols matter most, as a text whose hash is its name, so that a name means one map for ever."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.common.load_shedder import TieredPriorities
from k2.schemas.symbols import SYMBOL_RULE, is_symbol

if TYPE_CHECKING:
    from collections.abc import Iterable

TIER_1_SYMBOLS: Final = 20
TIER_2_SYMBOLS: Final = 80
"""With the first tier, the 100 symbols that are traded most."""
LOW_KINDS: Final = ("quotes",)
"""Of the symbols that are in no tier, these are deferred first: a quote is soon followed by another, a trade is not."""
_ID_DIGITS: Final = 16
_TIERS: Final = ("tier_1", "tier_2")


@dataclass(frozen=True, slots=True)
class TierMap:
    """Symbols of the first and the second tier; all others are in neither."""

    tier_1: frozenset[str] = frozenset()
    tier_2: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tier_1: Iterable[str], tier_2: Iterable[str]) -> TierMap:
        """Return a map.

        Raises:
            ConfigurationError: a symbol is none, or is in both tiers.
        """
        first, second = frozenset(tier_1), frozenset(tier_2)
        wrong = sorted(repr(symbol) for symbol in first | second if not is_symbol(symbol))
        if wrong:
            raise ConfigurationError(
                f"expected {SYMBOL_RULE} in a tier map, found {', '.join(wrong[:3])}: mend the file"
            )
        both = sorted(first & second)
        if both:
            raise ConfigurationError(
                f"expected each symbol in one tier, found {', '.join(both[:3])} in both: mend the file"
            )
        return cls(first, second)

    @classmethod
    def from_json(cls, text: str) -> TierMap:
        """Read `{"tier_1": [symbols], "tier_2": [symbols]}`.

        Raises:
            ConfigurationError: the text is something else.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(
                f"expected a tier map as JSON, found {text[:80]!r} ({error}): mend the file"
            ) from error
        if (
            not isinstance(body, dict)
            or set(body) != set(_TIERS)
            or not all(isinstance(tier, list) and all(isinstance(each, str) for each in tier) for tier in body.values())
        ):
            raise ConfigurationError(
                f'expected a tier map as {{"tier_1": [symbols], "tier_2": [symbols]}}, found {text[:80]!r}: '
                "mend the file"
            )
        return cls.of(body["tier_1"], body["tier_2"])

    @classmethod
    def by_volume(
        cls, volumes: pl.DataFrame, *, tier_1_symbols: int = TIER_1_SYMBOLS, tier_2_symbols: int = TIER_2_SYMBOLS
    ) -> TierMap:
        """Return the map of the symbols that are traded most; `volumes` has `symbol` and `volume`, any row order."""
        ranked = (
            volumes.group_by("symbol")
            .agg(pl.col("volume").sum())
            .sort(pl.col("volume"), pl.col("symbol"), descending=[True, False])["symbol"]
            .to_list()
        )
        both = tier_1_symbols + tier_2_symbols
        return cls.of(ranked[:tier_1_symbols], ranked[tier_1_symbols:both])

    def to_json(self) -> str:
        """Return the text of the map: the same for the same symbols, whatever their order was."""
        body = {"tier_1": sorted(self.tier_1), "tier_2": sorted(self.tier_2)}
        return json.dumps(body, separators=(",", ":"))

    @property
    def map_id(self) -> str:
        """The name that deferred ranges carry."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:_ID_DIGITS]

    def priorities(self) -> TieredPriorities:
        """Return what gives a symbol of a data type its priority."""
        return TieredPriorities(self.tier_1, self.tier_2, low_kinds=LOW_KINDS)
