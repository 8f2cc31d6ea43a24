"""Measures the queue alone: hand-off latency, tasks per second at each depth, memory, and fsync at every write."""
