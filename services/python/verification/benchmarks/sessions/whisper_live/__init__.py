"""WhisperLive beside Daybreak: how late the text is, by the number of clients.

WhisperLive is not in our lock. It runs in a Python of its own, which :mod:`.servers` starts with :mod:`.app`.
"""
