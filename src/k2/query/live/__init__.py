"""What streams read of the log: its newest rows for many readers at once."""
