"""Live streams: history, tail and what comes next, as server-sent events with one cursor."""
