"""The fault campaign: seeded runs of the pipeline with faults, in simulation and on real processes, and its oracle."""
