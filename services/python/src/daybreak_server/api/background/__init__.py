"""What a gateway does besides answering: ticks the queue, deletes orphan files, ends its own coroutines."""
