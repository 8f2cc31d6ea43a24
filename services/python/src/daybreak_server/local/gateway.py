"""``daybreakd gateway --embedded``: a gateway with an embedded Valkey, for machines that have no Redis."""

from __future__ import annotations

import os
import time

from daybreak_server.entrypoints.gateway import Gateway, serve
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import with_redis
from daybreak_server.local.foreground import run_in_foreground
from daybreak_server.local.instance import GATEWAY_MODE, Instance
from daybreak_server.settings.address_format import reachable, url_of
from daybreak_server.settings.tree import Settings


def run_gateway(settings: Settings) -> int:
    """Run until a signal arrives. :returns: the exit code."""
    return run_in_foreground(settings, _run)


def _run(settings: Settings, instance: Instance, started: float) -> int:
    with with_redis(settings, instance) as (complete, valkey):
        url = url_of(reachable(complete.http.host), complete.http.port)

        def ready() -> None:
            pids = {"gateway": os.getpid(), **valkey}
            instance.write_state({"mode": GATEWAY_MODE, "ready": True, "url": url, "pids": pids})
            say(f"ready in {time.monotonic() - started:.1f} s: {url}")

        return serve(Gateway(complete, on_started=ready))
