"""What brings records into the log: importers and the simulated market."""
