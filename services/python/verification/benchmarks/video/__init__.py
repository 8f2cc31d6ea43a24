"""Measures how long a video takes with and without Daybreak: ``python -m verification.benchmarks.video``."""
