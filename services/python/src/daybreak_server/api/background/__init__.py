"""What a gateway does besides responding: ticks the queue, deletes files, tunes garbage collection."""
