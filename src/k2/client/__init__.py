"""The HTTP client; it knows nothing of the server."""

from k2.client.async_client import AsyncK2Client
from k2.client.client import K2Client, Result, joined_certificate
from k2.client.errors import ApiUnavailableError, RefusedKeyError, RefusedQuestionError
from k2.client.streaming import StreamEvent

__all__ = [
    "ApiUnavailableError",
    "AsyncK2Client",
    "K2Client",
    "RefusedKeyError",
    "RefusedQuestionError",
    "Result",
    "StreamEvent",
    "joined_certificate",
]
