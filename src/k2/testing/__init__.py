"""Fakes and fault injection for tests of K2 and of what is built on it; nothing in the product imports it."""
