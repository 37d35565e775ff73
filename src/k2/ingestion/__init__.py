"""From the log to the tables: batches, accounting, dead letters, fenced commits."""
