"""``python -m verification.benchmarks.tracing.serve KIND PORT …`` runs one of the processes of the benchmark.

``gateway PORT REDIS_URL FOLDER PREFIX COLLECTOR_URL RATIO`` is a gateway whose keys begin with the prefix; with an
empty URL its tracing is off. ``collector
PORT`` accepts spans and forgets them.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from daybreak_server.entrypoints.gateway import Gateway
from daybreak_server.settings.tracing import TracingSettings
from verification.benchmarks.http import serve


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def tracing(collector: str, ratio: float) -> TracingSettings:
    """Tracing to this collector; off without one."""
    return (
        TracingSettings(enabled=True, endpoint=collector, sample_ratio=ratio)
        if collector
        else TracingSettings()
    )


def main(arguments: list[str]) -> None:
    """Serve until a signal."""
    kind, port, *rest = arguments
    if kind == "collector":
        ThreadingHTTPServer(("127.0.0.1", int(port)), _Sink).serve_forever()
        return
    redis_url, folder, prefix, collector, ratio = rest
    settings = serve.settings(int(port), redis_url, folder)
    redis = settings.redis.model_copy(update={"prefix": prefix})
    Gateway(settings.model_copy(update={"redis": redis, "tracing": tracing(collector, float(ratio))})).run()


if __name__ == "__main__":
    main(sys.argv[1:])
