"""Streaming sessions on Redis: the typed side of the scripts ``session_*.lua``."""
