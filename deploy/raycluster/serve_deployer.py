"""Keeps Ray Serve's applications deployed: deploys them if they are missing or have failed permanently.

A Daybreak with a fixed number of groups has no operator, so this script runs as a sidecar of the head. It uses only the
standard library, and reads Ray's token from ``RAY_AUTH_TOKEN``.

Usage: ``serve_deployer.py APPLICATIONS [URL [SECONDS]]``.
"""

import json
import os
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

FAILED = "DEPLOY_FAILED"


class ServeClient:
    """Ray Serve's REST API."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/serve/applications/"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def states(self) -> dict[str, str]:
        """The status of each application, by name."""
        applications = json.loads(self._call("GET"))["applications"]
        return {name: application["status"] for name, application in applications.items()}

    def put(self, config: dict[str, Any]) -> None:
        """Deploy the applications. Serve does not touch those that have not changed."""
        self._call("PUT", json.dumps(config).encode())

    def _call(self, method: str, data: bytes | None = None) -> bytes:
        request = Request(self._url, data=data, headers=self._headers, method=method)
        with urlopen(request, timeout=60) as response:
            body: bytes = response.read()
            return body


def keep(serve: ServeClient, config: dict[str, Any]) -> str | None:
    """Deploy what is missing or failed. Serve retries a failed application only if its arguments have changed.

    :returns: what was done; ``None`` if nothing.
    """
    states = serve.states()
    names = [application["name"] for application in config["applications"]]
    failed = [name for name in names if states.get(name) == FAILED]
    if not failed and all(name in states for name in names):
        return None
    for application in config["applications"]:
        if application["name"] in failed:
            application["args"]["attempt"] = application["args"].get("attempt", 0) + 1
    serve.put(config)
    return f"deployed {', '.join(names)}" + (f"; {', '.join(failed)} had failed" if failed else "")


def main(applications: str, url: str = "http://127.0.0.1:8265", seconds: str = "5") -> None:
    """Run until SIGTERM, which the first process of a container must handle itself."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config = json.loads(Path(applications).read_text())
    serve = ServeClient(url, os.environ.get("RAY_AUTH_TOKEN", ""))
    while True:
        try:
            done = keep(serve, config)
        except (OSError, HTTPException, ValueError, KeyError) as exc:
            done = f"Ray Serve does not answer yet: {exc!r}"
        if done:
            print(f"{time.strftime('%H:%M:%S')} {done}", flush=True)
        time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
