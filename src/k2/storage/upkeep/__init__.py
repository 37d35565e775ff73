"""Upkeep of the tables: merging, compaction, expiry, orphans, retention; none of it changes a row that stays."""
