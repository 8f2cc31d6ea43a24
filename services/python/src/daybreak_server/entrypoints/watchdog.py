"""``python -m daybreak_server.entrypoints.watchdog``: keeps a leader's lease; see ``daybreak_server.engines.rank.watchdog``.

What it needs comes on standard input, because it holds the store's password. It imports little: it starts with
every group.
"""

from __future__ import annotations

import signal
import sys

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.engines.rank.watchdog import SharedHeartbeat, WatchdogLoop, first_line, serve


def main() -> int:
    """Watchdog until the leader is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its leader, which may be handing back
        signal.signal(number, signal.SIG_IGN)
    source = sys.stdin.fileno()
    told, heard = first_line(source)
    queue = RedisQueue(
        Endpoint.of(told["where"]),
        pool=told["pool"],
        prefix=told["prefix"],
        lease_s=told["lease_s"],
        timeout_s=told["timeout_s"],
    )
    watch = WatchdogLoop(queue, SharedHeartbeat(told["page"]), leader=told["leader"], lease_s=told["lease_s"])
    serve(watch, source, heard)
    queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
