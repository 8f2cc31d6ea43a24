"""The logic of both clients. It does no I/O.

An operation (send a request with retries, follow a task, download a file …) is a generator. It yields *effects* (send
this request, read a chunk, sleep) and receives their outcomes. So retries, reconnects, paging and resumed downloads are
written once, here. ``daybreak.sync`` and ``daybreak.aio`` only perform the effects.
"""
