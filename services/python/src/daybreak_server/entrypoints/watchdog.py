"""``python -m daybreak_server.entrypoints.watchdog``: the watchdog beside a leader.

What it does is in :mod:`daybreak_server.engines.rank.watchdog_process`. Its configuration comes on standard input,
because the configuration holds the store's password. The module imports little, because a watchdog starts with every
group.
"""

from __future__ import annotations

import signal
import sys

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.engines.rank.shared_heartbeat import SharedHeartbeat
from daybreak_server.engines.rank.watchdog_process import WatchdogLoop, read_config, run


def main() -> int:
    """Watch the leader until it is gone."""
    # Ignore signals: the watchdog ends with its leader, which may still have to release its task.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    source = sys.stdin.fileno()
    config, received = read_config(source)
    queue = RedisQueue(
        Endpoint.of(config["endpoint"]),
        pool=config["pool"],
        prefix=config["prefix"],
        lease_s=config["lease_s"],
        timeout_s=config["timeout_s"],
    )
    shared = SharedHeartbeat(config["heartbeat_fd"])
    loop = WatchdogLoop(queue, shared, leader=config["leader"], lease_s=config["lease_s"])
    run(loop, source, received)
    queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
