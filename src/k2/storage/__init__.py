"""The only Iceberg speaker: catalog, tables, the fenced commit, planning, upkeep."""
