"""``daybreakd gateway --embedded``: a gateway beside an embedded Valkey, for machines that have nothing else."""

from __future__ import annotations

import os
import sys
import time

from daybreak_server.entrypoints.gateway import Gateway, serve
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import with_redis
from daybreak_server.local.instance import GATEWAY_MODE, Instance, InstanceError, free_port, is_free
from daybreak_server.local.supervisor import ProcessFailedError
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.settings.address_format import reachable, url_of
from daybreak_server.settings.tree import Settings


def run_gateway(settings: Settings) -> int:
    """Run until a signal arrives. :returns: the exit code."""
    started = time.monotonic()
    log_to_stderr(settings.log)
    try:
        instance = Instance(settings.data_dir)
        instance.open()
    except InstanceError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    try:
        return _run(settings, instance, started)
    except (InstanceError, ProcessFailedError) as exc:
        sys.stderr.write(f"cannot start: {exc}\n")
        return 1
    finally:
        instance.close()


def _run(settings: Settings, instance: Instance, started: float) -> int:
    http = settings.http
    if http.port and not is_free(http.port, http.host):
        raise InstanceError(f"port {http.port} is in use: set DAYBREAK_HTTP__PORT to another port")
    http = http.model_copy(update={"port": http.port or free_port(http.host)})
    with with_redis(settings.model_copy(update={"http": http}), instance) as (complete, valkey):
        url = url_of(reachable(http.host), http.port)

        def ready() -> None:
            pids = {"gateway": os.getpid(), **valkey}
            instance.write_state({"mode": GATEWAY_MODE, "ready": True, "url": url, "pids": pids})
            say(f"ready in {time.monotonic() - started:.1f} s: {url}")

        return serve(Gateway(complete, on_started=ready))
