"""A whole platform on one machine: broker, registry, Valkey, worker, API, and their supervisor."""
