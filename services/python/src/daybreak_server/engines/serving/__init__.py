"""The serving engine: the groups of a pool of kind ``online`` answer HTTP requests.

From the inside out:

* ``answer_parts``   turns what ``serve`` returns into a checked head and parts of a body
* ``exchange``       one request and its answer, between the thread that works and the loop that speaks HTTP
* ``admission``      how many requests a group holds, and why it refuses more
* ``request_metrics`` what a leader measures about its requests
* ``http_app``       the ASGI app of a leader: admits, reads, refuses, streams
* ``http_server``    runs the app on a free port of the leader's host
* ``request_run``    runs one request on all ranks, which agree after each part whether to continue
* ``worker_threads`` the threads on which a group runs its requests
* ``bulk``           tasks that a group runs beside its requests
* ``leader``, ``follower``, ``loops``  the loops of the leader and of the followers

The rest of a group's life (rendezvous, lease renewer, heartbeat, watchdog) is the same as for jobs, and is in
``engines.ranks`` and ``engines.common``.
"""
