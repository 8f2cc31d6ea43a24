"""A stub of the Kubernetes API, with or without KubeRay's kind.

It serves the lists of a namespace that an observation reads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kubernetes import client


@dataclass(slots=True)
class Lists:
    """How the stub answers. All lists are empty."""

    kuberay: bool = False
    stalls: bool = False
    """Send only the first bytes of each body; the rest follows once ``resume`` is set."""
    resume: threading.Event = field(default_factory=threading.Event)


@contextmanager
def listening(lists: Lists) -> Iterator[client.ApiClient]:
    """An API client for the stub, while it listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = lists.kuberay or "/ray.io/" not in self.path
            body = json.dumps({"items": [], "metadata": {}} if known else {"code": 404}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:5])
            if lists.stalls:
                lists.resume.wait(30)
            self.wfile.write(body[5:])

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    settings.retries = False
    api = client.ApiClient(settings)
    try:
        yield api
    finally:
        lists.resume.set()
        api.close()
        server.shutdown()
        server.server_close()
