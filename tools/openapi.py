"""Writes docs/openapi.json, the document of a server with the pools `video` and `echo`.

``python tools/openapi.py`` writes it; ``--check`` shows what would change, and exits 1 when it is stale.
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
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.settings.tree import PoolSettings, Settings

PATH = Path(__file__).parent.parent / "docs" / "openapi.json"
POOLS = {"video": PoolSettings(workload="video"), "echo": PoolSettings(workload="echo")}


def app() -> FastAPI:
    """The application. Nothing is connected: it is built, not started."""
    services = Services(
        settings=Settings(pools=POOLS),
        store=cast("TaskStore", None),
        events=cast("EventLog", None),
        housekeeper=cast("Housekeeper", None),
        blobs=cast("Blobs", None),
    )
    return build_app(services)


def document() -> str:
    """The document as text."""
    return json.dumps(app().openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the file is stale")
    made = document()
    if not parser.parse_args().check:
        PATH.write_text(made, encoding="utf-8")
        return 0
    found = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if found == made:
        return 0
    before, after = found.splitlines(keepends=True), made.splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(before, after, "docs/openapi.json", "as the code has it", n=2))
    print("docs/openapi.json is stale: run `python tools/openapi.py` and commit it with what changed it.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
