"""Streaming sessions: how many of them a device sustains, by the strategy that forms its batches."""
