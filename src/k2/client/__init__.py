"""The HTTP client; it knows nothing of the server."""

from k2.client.client import K2Client, Result

__all__ = ["K2Client", "Result"]
