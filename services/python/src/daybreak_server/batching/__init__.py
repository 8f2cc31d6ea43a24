"""Batches: which requests a device computes together, and when.

Pure: no asyncio, no clock, no torch. The caller passes the time and runs the batches. See :mod:`.batcher`.
"""
