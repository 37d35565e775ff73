"""Bars of trades: which trades count, where bars begin and end, and what is said of each."""
