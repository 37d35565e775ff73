"""The REST API around a hybrid query engine."""
