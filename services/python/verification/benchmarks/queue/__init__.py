"""The queue alone: hand-off latency, tasks per second by depth, memory, and fsync at every write."""
