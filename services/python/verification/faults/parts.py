"""What runs in a gateway's and in a rank's process: the product's own parts, with failpoints around their ports.

``python -m verification.faults.parts SPEC LOG`` runs one in an interpreter of its own; the zygote runs them in forks.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import zlib
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from daybreak_server import wiring
from daybreak_server.adapters.redis.scripts import Library
from daybreak_server.api.app import build_app
from daybreak_server.api.server import ApiServer
from daybreak_server.engines.gang.rank import Rank, RankDeps
from daybreak_server.engines.rank.watchdog import Watchdog
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads import registry
from verification.faults.failpoints import (
    FailingBlobs,
    FailingEvents,
    FailingQueue,
    FailingStore,
    FailingWorkload,
    Failpoints,
)

EXIT_BROKEN = 70
EXIT_ILL = 71


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the cluster."""

    kind: str
    """``gateway``, ``rank``, or ``program`` (something else, started by ``command``)."""
    name: str
    folder: str
    """The cluster's folder: failpoints, logs."""
    settings: str = ""
    pool: str = ""
    rank: int = 0
    board: str = ""
    """The folder in which the ranks of this group meet; each incarnation has its own."""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    """Where there is one, the part runs in an interpreter of its own, so that the loader sees it too."""
    guarded: bool = False
    """Whether a leader has a guard, as in production."""
    chance: dict[str, float] = field(default_factory=dict)
    """Failpoints that fire by chance, at each pass."""
    seed: int = 0

    def as_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Part:
        """The inverse."""
        fields = json.loads(text)
        return cls(**{**fields, "command": tuple(fields["command"])})


class FolderRendezvousStore:
    """A meeting place in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "leader"

    def put(self, address: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(address)
        fresh.rename(self._file)

    def get(self) -> str | None:
        try:
            return self._file.read_text()
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        self._file.unlink(missing_ok=True)


def preload() -> None:
    """Import and read all that parts need, in the process that they are forked from: what is edited in the tree
    during a run does not reach it."""
    library = Library()
    for script in files("daybreak_server.adapters.redis").joinpath("lua").iterdir():
        name, _, kind = script.name.partition(".")
        if kind == "lua" and not name.startswith("_"):
            library.get(name)
    pools = {"echo": {"workload": "echo", "device": "cpu"}}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"data_dir": folder, "redis": {"url": "redis://127.0.0.1:1"}, "pools": pools}
        )
        build_app(wiring.build_services(settings))
    registry.implementation(wiring.workload_spec(settings.pools["echo"]))


def run(part: Part) -> None:
    """Be this part, to its end."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {part.name}[{os.getpid()}] %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    points = Failpoints(
        Path(part.folder),
        who=part.name,
        chance=part.chance,
        seed=zlib.crc32(f"{part.seed}/{os.getpid()}".encode()),
    )
    if part.kind == "gateway":
        _gateway(part, points)
    else:
        _rank(part, points)


def _gateway(part: Part, points: Failpoints) -> None:
    settings = Settings.model_validate_json(part.settings)
    services = wiring.build_services(settings)
    store = FailingStore(services.store, points)
    app = build_app(
        replace(
            services,
            store=store,
            housekeeper=store,
            events=FailingEvents(services.events, points),
            blobs=FailingBlobs(services.blobs, points),
        )
    )
    ApiServer(app, host=settings.http.host, port=settings.http.port).run()


def _rank(part: Part, points: Failpoints) -> None:
    settings = Settings.model_validate_json(part.settings)
    spec = wiring.workload_spec(settings.pools[part.pool])

    def workload() -> Any:
        return FailingWorkload(registry.implementation(spec), points)

    outside = RankDeps(
        queue=lambda: FailingQueue(wiring.build_queue(settings, part.pool), points),
        blobs=lambda: FailingBlobs(wiring.build_blobs(settings), points),
        workload=workload,
        on_broken=lambda why: os._exit(EXIT_BROKEN),
        board=FolderRendezvousStore(Path(part.board)),
        label=part.name,
        watchdog=(lambda: _watchdog(settings, part)) if part.guarded else None,
    )
    member = Rank(spec, wiring.gang_config(settings, part.pool), outside, rank=part.rank)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    member.start()
    while not told.wait(0.5):
        if member.health() is not None:  # as Serve's health check does
            os._exit(EXIT_ILL)
    member.stop(timeout_s=5.0)
    os._exit(0)


class _NotedWatchdog(Watchdog):
    """Tells the cluster its process's id, so that it can be killed too."""

    note: Path

    def start(self) -> None:
        super().start()
        process = self._process
        if process is not None:
            fresh = self.note.with_suffix(".new")
            fresh.write_text(str(process.pid))
            fresh.rename(self.note)


def _watchdog(settings: Settings, part: Part) -> Watchdog:
    made = wiring.build_guard(settings, part.pool)
    watchdog = _NotedWatchdog(made._command, told=made._told)
    made.page.close()
    folder = Path(part.folder) / "guards"
    folder.mkdir(exist_ok=True)
    watchdog.note = folder / part.name
    return watchdog


def main() -> None:
    """As a program."""
    log = os.open(sys.argv[2], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    run(Part.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
