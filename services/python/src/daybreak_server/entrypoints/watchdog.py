"""``python -m daybreak_server.entrypoints.watchdog``: the watchdog beside a leader.

What it does is in :mod:`daybreak_server.engines.common.watchdog_process`. Its configuration comes on standard input,
because the configuration holds the store's password. The module imports little, because a watchdog starts with every
group; so it sets up the log only when it has its first line.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.engines.common.shared_heartbeat import SharedHeartbeat
from daybreak_server.engines.common.watchdog_process import WatchdogLoop, read_config, run
from daybreak_server.observability.changes import log_change


class _FirstLine(logging.Handler):
    """Sets up the log when the first line comes, because that imports the settings."""

    def __init__(self, log: Mapping[str, Any]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Replace this handler by those of the settings, and let them handle the record."""
        try:
            from daybreak_server.observability.logging import log_from_ray_worker
            from daybreak_server.settings.tree import LogSettings

            log_from_ray_worker(LogSettings.model_validate(self._log))
            logging.getLogger(record.name).handle(record)
        except Exception:  # the watchdog must still release the leases, for example on a full disk
            self.handleError(record)


def main() -> int:
    """Watch the leader until it is gone."""
    # Ignore signals: the watchdog ends with its leader, which may still have to release its task.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    source = sys.stdin.fileno()
    config, received = read_config(source)
    logging.basicConfig(handlers=[_FirstLine(config["log"])], level=config["log"]["level"].upper())
    queue = RedisQueue(
        Endpoint.of(config["endpoint"]),
        pool=config["pool"],
        prefix=config["prefix"],
        lease_s=config["lease_s"],
        timeout_s=config["timeout_s"],
        on_change=log_change,
    )
    shared = SharedHeartbeat(config["heartbeat_fd"])
    loop = WatchdogLoop(queue, shared, leader=config["leader"], lease_s=config["lease_s"])
    run(loop, source, received)
    queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
