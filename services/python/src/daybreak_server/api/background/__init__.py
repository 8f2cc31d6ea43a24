"""What a gateway does besides responding: ticks the queue, deletes unused files, tunes Python's garbage collection."""
