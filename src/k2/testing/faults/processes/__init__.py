"""The fault campaign on real processes: a real broker and registry, ingest workers that are stopped, killed, misled."""
