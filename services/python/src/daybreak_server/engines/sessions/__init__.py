"""Groups that serve streaming sessions, iteration by iteration.

* ``session`` is one session as its group knows it. The module is pure.
* ``table`` has the sessions of a group, the scheduler and the model. Only the work thread uses it.
* ``model_steps`` calls the model, for a whole batch or for each of its sessions alone.
* ``threads`` has the threads that call the store. They claim sessions, read audio, renew leases and write commits, so
  the model does not wait for Redis, unless thousands of commits are unwritten.
* ``session_metrics`` measures the sessions, and the steps of the model.
* ``session_traces`` records the spans of the sessions.
* ``leader`` is the loop that serves the sessions. ``loops`` gives this loop to a group. Such a group has one rank.

How a session resumes on another group: :mod:`daybreak_server.domain.sessions` has the store's steps. On the new group,
``threads`` claims the session with its journal, :class:`.session.Session` begins from that journal, and ``table`` gives
the past turns to the model.
"""
