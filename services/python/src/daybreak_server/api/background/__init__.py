"""What a gateway does beside its routes.

It ticks the queue, deletes unused files, reads the metrics of pools and Redis, and tunes Python's garbage collection.
"""
