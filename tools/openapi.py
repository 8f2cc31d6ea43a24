"""Writes docs/openapi.json, the OpenAPI document of a server with the pools `video` and `echo`.

``python tools/openapi.py`` writes the file. ``--check`` shows what would change, and exits with 1 if the file is stale.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import cast

from fastapi import FastAPI

from daybreak_server.api.app import build_app
from daybreak_server.api.services import Services
from daybreak_server.ports.batching_settings import BatchingStore
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.demand import DemandStore
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.measurements import Measurements
from daybreak_server.ports.registry import Registry
from daybreak_server.ports.sessions import SessionEvents, SessionStore
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.ports.upstreams import Upstreams
from daybreak_server.settings.tree import PoolSettings, Settings

PATH = Path(__file__).parent.parent / "docs" / "openapi.json"
POOLS = {"video": PoolSettings(workload="video"), "echo": PoolSettings(workload="echo")}


def app() -> FastAPI:
    """The app, built but not started: it has no store."""
    services = Services(
        settings=Settings(pools=POOLS),
        store=cast("TaskStore", None),
        events=cast("EventLog", None),
        housekeeper=cast("Housekeeper", None),
        measurements=cast("Measurements", None),
        blobs=cast("Blobs", None),
        demand=cast("DemandStore", None),
        registry=cast("Registry", None),
        batching=cast("BatchingStore", None),
        upstreams=cast("Upstreams", None),
        sessions=cast("SessionStore", None),
        session_events=cast("SessionEvents", None),
    )
    return build_app(services)


def document() -> str:
    """The document as text."""
    return json.dumps(app().openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check. :returns: the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the file is stale"
    )
    generated = document()
    if not parser.parse_args().check:
        PATH.write_text(generated, encoding="utf-8")
        return 0
    committed = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if committed == generated:
        return 0
    before, after = committed.splitlines(keepends=True), generated.splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(before, after, "docs/openapi.json", "generated", n=2))
    print("docs/openapi.json is stale. Run `python tools/openapi.py` and commit the file with your change.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
