"""``python -m daybreak_server.entrypoints.watchdog``: the watchdog beside a leader.

:mod:`daybreak_server.engines.common.watchdog_process` describes what the watchdog does. The configuration comes on
standard input, because it holds the store's password. This module imports little, because a watchdog starts with
every group. So it sets up the log only when the first line is logged.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.engines.common.shared_heartbeat import SharedHeartbeat
from daybreak_server.engines.common.watchdog_process import WatchdogLoop, read_config, run
from daybreak_server.observability.changes import recorder
from daybreak_server.ports.tracing import NO_TRACING, Tracing

_log = logging.getLogger(__name__)


class _FirstLine(logging.Handler):
    """Sets up the log only when the first line comes, because the set-up imports the settings."""

    def __init__(self, log: Mapping[str, Any]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Replace this handler by the handlers that the settings describe, and let those handle the record."""
        try:
            from daybreak_server.observability.logging import log_from_ray_worker
            from daybreak_server.settings.tree import LogSettings

            log_from_ray_worker(LogSettings.model_validate(self._log))
            logging.getLogger(record.name).handle(record)
        # The watchdog must settle the leases even if it cannot log, for example on a full disk.
        except Exception:
            self.handleError(record)


class _EndedSessions:
    """Records the ends of sessions in their traces. It sets up tracing only when it records the first end, because
    tracing imports OpenTelemetry, and hardly any watchdog ends a session."""

    def __init__(self, tracing: Mapping[str, Any]) -> None:
        self._settings = tracing
        self._tracing: Tracing = NO_TRACING

    def record(self, change: SessionChange) -> None:
        """Record the end of a session. Never raises."""
        if not self._settings["enabled"] or change.trace_context is None or not change.trace_context.sampled:
            return
        try:
            if self._tracing is NO_TRACING:
                from daybreak_server import wiring
                from daybreak_server.settings.tree import TracingSettings

                settings = TracingSettings.model_validate(self._settings)
                self._tracing = wiring.build_tracing(settings, service=wiring.GROUP)
            self._tracing.session_ended(change)
        except Exception:
            _log.exception("the end of session %s cannot be recorded in its trace", change.session)

    def close(self) -> None:
        """Send what has been recorded."""
        self._tracing.close()


def main() -> int:
    """Watch the leader until it is gone."""
    # Ignore signals: the watchdog ends with its leader, which may still have to release its task.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    source = sys.stdin.fileno()
    config, received = read_config(source)
    logging.basicConfig(handlers=[_FirstLine(config["log"])], level=config["log"]["level"].upper())
    ended_sessions = _EndedSessions(config["tracing"])
    queue = RedisQueue(
        Endpoint.of(config["endpoint"]),
        pool=config["pool"],
        prefix=config["prefix"],
        lease_s=config["lease_s"],
        timeout_s=config["timeout_s"],
        on_change=recorder(ended_sessions.record),
    )
    shared = SharedHeartbeat(config["heartbeat_fd"])
    loop = WatchdogLoop(queue, shared, leader=config["leader"], lease_s=config["lease_s"])
    run(loop, source, received)
    queue.close()
    ended_sessions.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
