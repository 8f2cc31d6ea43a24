"""WhisperLive beside Daybreak: how late the text is, by the number of clients.

WhisperLive is not in `requirements.lock`. It runs in a Python environment of its own. :mod:`.servers` starts
:mod:`.app` there.
"""
