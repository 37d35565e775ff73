"""Answers from table and tail as one: the hybrid engine, its certificate, the audit."""
