"""A stub of the Kubernetes API, with or without the CRD of RayCluster.

To observe a namespace, the operator makes list calls. The stub answers each call with an empty list, or with 404 if the
call is for RayClusters and their CRD is missing.
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
class Behaviour:
    """How the stub answers."""

    kuberay: bool = False
    stalls: bool = False
    """Send only the first bytes of each body; the rest follows once ``resume`` is set."""
    resume: threading.Event = field(default_factory=threading.Event)


@contextmanager
def listening(behaviour: Behaviour) -> Iterator[client.ApiClient]:
    """Start the stub, and stop it at the end. Yields an API client that calls the stub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = behaviour.kuberay or "/ray.io/" not in self.path
            body = json.dumps({"items": [], "metadata": {}} if known else {"code": 404}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:5])
            if behaviour.stalls:
                behaviour.resume.wait(30)
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
        behaviour.resume.set()
        api.close()
        server.shutdown()
        server.server_close()
