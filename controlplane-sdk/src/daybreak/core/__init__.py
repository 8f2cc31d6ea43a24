"""The logic of both clients, free of I/O.

An operation (submit, follow, download …) is a generator. It yields *effects* (send this request, read a chunk,
sleep) and receives their outcomes, so retries, reconnects, paging and resumed downloads are written once, here.
``daybreak.sync`` and ``daybreak.aio`` only perform the effects.
"""
