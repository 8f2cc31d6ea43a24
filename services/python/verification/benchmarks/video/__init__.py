"""Measures a video in a group of Daybreak beside the bare loop: ``python -m verification.benchmarks.video``."""
