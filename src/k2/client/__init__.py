"""The HTTP client; it knows nothing of the server."""
