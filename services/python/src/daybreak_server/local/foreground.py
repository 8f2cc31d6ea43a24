"""Runs an instance whose gateway is in this process, as ``daybreakd dev`` and ``daybreakd gateway --embedded`` do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from daybreak_server.local.free_ports import free_port, is_free
from daybreak_server.local.instance import Instance, InstanceError
from daybreak_server.local.supervisor import ProcessFailedError
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.ports.blobs import BlobError
from daybreak_server.settings.tree import Settings

Run = Callable[[Settings, Instance, float], int]
"""Runs the instance until a signal arrives, and returns the exit code. The float is the start time of the command."""


def run_in_foreground(settings: Settings, run: Run) -> int:
    """Open the instance in the ``data_dir`` of the settings, and run it. In the settings, port 0 means any free port.

    :returns: the exit code; 1 if the instance cannot start.
    """
    started = time.monotonic()
    log_to_stderr(settings.log)
    try:
        instance = Instance(settings.data_dir)
        instance.open()
    except InstanceError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    try:
        return run(_with_port(settings), instance, started)
    except (InstanceError, ProcessFailedError, BlobError) as exc:
        sys.stderr.write(f"cannot start: {exc}\n")
        return 1
    finally:
        instance.close()


def _with_port(settings: Settings) -> Settings:
    http = settings.http
    if http.port and not is_free(http.port, http.host):
        raise InstanceError(f"port {http.port} is in use: set DAYBREAK_HTTP__PORT to another port")
    port = http.port or free_port(http.host)
    return settings.model_copy(update={"http": http.model_copy(update={"port": port})})
