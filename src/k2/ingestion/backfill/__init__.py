"""Writes what overload deferred, range by range, with spare capacity."""
