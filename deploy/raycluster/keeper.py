"""Keeps Ray Serve's applications on the head: puts them when they are missing, and again when they failed for good.

A sidecar of the head, for a Daybreak of fixed size without the operator. Standard library only.
``keeper.py APPLICATIONS [URL [SECONDS]]``; the token comes from ``RAY_AUTH_TOKEN``.
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


class Serve:
    """Ray Serve's REST API."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/serve/applications/"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def states(self) -> dict[str, str]:
        """The applications' states by name."""
        found = json.loads(self._call("GET"))["applications"]
        return {name: one["status"] for name, one in found.items()}

    def put(self, config: dict[str, Any]) -> None:
        """Put them all: what is there already is left as it is."""
        self._call("PUT", json.dumps(config).encode())

    def _call(self, method: str, data: bytes | None = None) -> bytes:
        request = Request(self._url, data=data, headers=self._headers, method=method)
        with urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body


def keep(serve: Serve, config: dict[str, Any]) -> str | None:
    """One look; what was done, if anything. An application that failed comes back only with other arguments."""
    states = serve.states()
    names = [one["name"] for one in config["applications"]]
    failed = [name for name in names if states.get(name) == FAILED]
    if not failed and all(name in states for name in names):
        return None
    for one in config["applications"]:
        if one["name"] in failed:
            one["args"]["attempt"] = one["args"].get("attempt", 0) + 1
    serve.put(config)
    return f"put {', '.join(names)}" + (f"; {', '.join(failed)} had failed" if failed else "")


def main(applications: str, url: str = "http://127.0.0.1:8265", seconds: str = "5") -> None:
    """Until SIGTERM, which the first process of a container must take itself."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config = json.loads(Path(applications).read_text())
    serve = Serve(url, os.environ.get("RAY_AUTH_TOKEN", ""))
    while True:
        try:
            done = keep(serve, config)
        except (OSError, HTTPException, ValueError, KeyError) as exc:
            done = f"not yet: {exc!r}"
        if done:
            print(f"{time.strftime('%H:%M:%S')} {done}", flush=True)
        time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
