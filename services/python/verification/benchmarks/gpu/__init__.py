"""Measures time and memory of Wan models of the real shape on a GPU: ``python -m verification.benchmarks.gpu``."""
