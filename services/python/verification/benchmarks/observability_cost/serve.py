"""``python -m verification.benchmarks.observability_cost.serve KIND PORT …`` runs a process of the benchmark.

``gateway PORT REDIS_URL FOLDER MODE COLLECTOR_URL`` runs a gateway. ``group PORT REDIS_URL FOLDER MODE COLLECTOR_URL
WORKLOAD`` runs a group of one rank, which listens on the port as soon as the rank has started. ``collector PORT``
runs a collector that accepts spans and drops them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from daybreak_server import wiring
from daybreak_server.api.server import ApiServer
from daybreak_server.entrypoints.gateway import Gateway
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.ports.metrics import NoMeter
from daybreak_server.settings.tree import Settings
from verification.benchmarks.http import serve
from verification.benchmarks.observability_cost import modes
from verification.benchmarks.observability_cost.modes import Mode


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class _Unmeasured(Gateway):
    """A gateway whose own metrics are off."""

    def __init__(self, settings: Settings) -> None:
        app = wiring.build_app(settings, meter=NoMeter())
        ApiServer.__init__(self, app, host=settings.http.host, port=settings.http.port)
        self._on_started = None


def group_settings(redis_url: str, folder: str, mode: Mode, collector: str, workload: str) -> Settings:
    """Settings with one pool, named after its workload."""
    pool = {"workload": workload}
    if workload == "video":
        pool["options"] = {"threads": 1}
    return Settings.model_validate(
        {
            "data_dir": folder,
            "redis": {"url": redis_url},
            "pools": {workload: pool},
            "tracing": modes.tracing_settings(mode, collector).model_dump(),
        }
    )


def _run_group(port: int, mode: Mode, settings: Settings) -> None:
    import ray

    from daybreak_server.adapters.ray.ray_meter import RayMeter

    ray.init(
        address=os.environ["RAY_ADDRESS"], log_to_driver=False
    )  # also in modes without metrics, so that Ray's threads use CPU time in every mode
    meter = RayMeter() if mode.metrics else None
    log_to_stderr(modes.log_settings(mode))  # Ray has configured a log of its own
    (pool,) = settings.pools
    rank = wiring.build_rank(settings, pool, on_broken=print, meter=meter)
    rank.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with socket.create_server(("127.0.0.1", port)):
        try:
            signal.pause()
        finally:
            rank.stop(timeout_s=10)


def main(arguments: list[str]) -> None:
    """Serve until a signal."""
    kind, port, *rest = arguments
    if kind == "collector":
        ThreadingHTTPServer(("127.0.0.1", int(port)), _Sink).serve_forever()
        return
    redis_url, folder, name, collector, *workload = rest
    mode = modes.find(name)
    log_to_stderr(modes.log_settings(mode))
    if not mode.totals:
        modes.count_nothing()
    if kind == "group":
        _run_group(int(port), mode, group_settings(redis_url, folder, mode, collector, *workload))
        return
    tracing = modes.tracing_settings(mode, collector)
    settings = serve.settings(int(port), redis_url, folder).model_copy(update={"tracing": tracing})
    (Gateway if mode.metrics else _Unmeasured)(settings).run()


if __name__ == "__main__":
    main(sys.argv[1:])
