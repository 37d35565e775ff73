"""A catalog that loses replies, fails before the swap, or lets somebody else in first; the real one does the work."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyiceberg.catalog import Catalog


class Fault(Enum):
    """What happens to one commit."""

    NONE = "none"
    FAIL_BEFORE_SWAP = "fail_before_swap"
    """The connection breaks before the catalog has the request."""
    LOSE_REPLY = "lose_reply"
    """The swap happens; the caller is told that the connection broke."""


class FaultyCatalog:
    """Stands before a catalog. `faults` are used up one a commit; after them nothing goes wrong.

    `before_commit` runs before each commit reaches the catalog: the place for another writer to be faster.
    """

    def __init__(
        self, catalog: Catalog, faults: Iterable[Fault] = (), *, before_commit: Callable[[], None] = lambda: None
    ) -> None:
        self._catalog = catalog
        self.faults = deque(faults)
        self.before_commit = before_commit
        self.commits = 0
        self.loads_fail = False

    def __getattr__(self, name: str) -> Any:  # Any: whatever the catalog has by that name
        return getattr(self._catalog, name)

    def load_table(self, identifier: Any) -> Any:  # Any: PyIceberg's identifier and table, handed through
        """Load a table that commits through here."""
        if self.loads_fail:
            raise ConnectionResetError("the catalog is down")
        table = self._catalog.load_table(identifier)
        table.catalog = self  # type: ignore[assignment]  # this class has what a table asks of its catalog
        return table

    def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:  # Any: handed through
        """Commit, with the next fault."""
        self.before_commit()
        self.commits += 1
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault is Fault.FAIL_BEFORE_SWAP:
            raise ConnectionResetError("lost before the swap")
        response = self._catalog.commit_table(table, requirements, updates)
        if fault is Fault.LOSE_REPLY:
            raise ConnectionResetError("the reply was lost")
        return response
