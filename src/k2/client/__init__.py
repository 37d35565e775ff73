"""The HTTP client; it knows nothing of the server."""

from k2.client.client import K2Client, Result, joined_certificate
from k2.client.errors import ApiUnavailableError, RefusedKeyError, RefusedQuestionError

__all__ = ["ApiUnavailableError", "K2Client", "RefusedKeyError", "RefusedQuestionError", "Result", "joined_certificate"]
