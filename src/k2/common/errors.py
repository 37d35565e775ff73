"""The errors of K2, split by what the caller does next.

K2Error
├── ConfigurationError     fix the settings or the call, then try again
│   └── MemberFencedError  another process took this one's place in its group; end this one
├── RecordError            this record is bad; dead-letter it and go on
├── QueryError             the question cannot be answered as asked; ask another
│   ├── ReadLimitError     more would have to be read than the caller allowed; allow more
│   └── ExpiredError       what it would have to be answered from is kept no more
├── UnavailableError       a dependency is down or busy; retry after a pause
│   └── OverloadedError    K2 itself is too busy
├── FencedError            another writer owns these partitions; drop the batch, seek to the seam
├── LogIdentityError       not the log that this table was built from; a person decides
├── AccountingError        records are unaccounted for; stop the writer, a person decides
└── CorruptionError        stored data is not what was written; the file is named
"""

from __future__ import annotations


class K2Error(Exception):
    """Base of every error that K2 raises on purpose."""


class ConfigurationError(K2Error):
    """A setting, file or argument is wrong; the text names it, what was expected and what to do."""


class MemberFencedError(ConfigurationError):
    """Another process joined the group under this one's member id; this one can never read again, and ends."""


class RecordError(K2Error):
    """One record is bad; dead-letter it and go on."""


class QueryError(K2Error):
    """The question itself is wrong or cannot be answered as asked."""


class ReadLimitError(QueryError):
    """More rows would have to be read than the caller allowed; nothing was read. Allow more, or ask for less."""


class ExpiredError(QueryError):
    """What the answer was made of, or what the question names, is no longer kept; ask about what is there now."""


class UnavailableError(K2Error):
    """A dependency is down or busy; retry after `retry_after_seconds`. `reason` is a word for programs, if any."""

    def __init__(
        self, message: str, *, dependency: str, retry_after_seconds: float = 1.0, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.dependency = dependency
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason


class OverloadedError(UnavailableError):
    """K2 itself is too busy; retry after `retry_after_seconds`."""


class FencedError(K2Error):
    """Another writer has moved the seam past this batch; drop the batch and seek to the seam."""


class LogIdentityError(K2Error):
    """The log is not the one that the table was built from; a person decides what to do."""


class AccountingError(K2Error):
    """Records consumed and records whose fate is known differ; the writer stops before it commits a false ledger."""


class CorruptionError(K2Error):
    """A stored file is damaged; `path` names it."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path
