"""Measures time and memory of full-size Wan models on a GPU: ``python -m verification.benchmarks.gpu``."""
