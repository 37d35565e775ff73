"""Faults for a numbered feed, on purpose and by seed, and the file that says which were injected."""
