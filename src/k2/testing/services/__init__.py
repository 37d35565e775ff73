"""Real servers for tests: PostgreSQL, Iceberg's REST catalog and an S3 store, on loopback, without containers."""
