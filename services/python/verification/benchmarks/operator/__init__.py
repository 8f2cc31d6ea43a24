"""Measures the operator with hundreds of pools and thousands of pods, on nodes that kwok simulates."""
