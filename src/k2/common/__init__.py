"""What every layer uses and nothing of market data: clock, errors, logging, metrics, crash points."""
