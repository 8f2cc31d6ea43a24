"""Compares Daybreak with other Python queues on Redis: on the same server, with the same tasks and real processes."""
