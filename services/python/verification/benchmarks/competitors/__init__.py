"""Daybreak beside other Python queues on Redis: the same server, the same tasks, real worker processes."""
