"""Measures how many streaming sessions a device sustains, for each strategy that forms batches."""
