"""All that the two clients do, without doing any of it.

An operation is a generator that yields *effects* (send this, read a chunk, sleep) and is sent their outcomes:
retries, reconnects, paging and downloads are written here once. ``daybreak.sync`` and ``daybreak.aio`` only
carry effects out.
"""
