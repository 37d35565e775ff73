"""Deliberate breaks of the product, each of which at least one fast test must catch: `make mutants`."""
