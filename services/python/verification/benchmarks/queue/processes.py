"""The processes of the benchmark, which run beside the server: producers, leaders and readers.

They are forked from a process that has imported the store and nothing else. So each starts within milliseconds, and
shares no state with the process that measures.
"""

from __future__ import annotations

from multiprocessing.context import ForkServerContext

from testkit import forkserver

_PRELOADED = tuple(f"daybreak_server.adapters.redis.{name}" for name in ("events", "queue", "store"))


def context() -> ForkServerContext:
    """The multiprocessing context that starts the processes and makes the objects that they share."""
    return forkserver.context(*_PRELOADED)
