"""K2: a market-data lakehouse that answers exactly, up to the last message."""

__version__ = "0.1.0"
