"""The figures of K2, measured on the machine at hand: `python -m benchmarks [NAME ...]`."""
