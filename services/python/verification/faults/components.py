"""Runs a gateway or a rank in this process: Daybreak's own code, with failpoints before and after its calls
to Redis and blobs.

The fork server runs each component in a fork of itself. ``python -m verification.faults.components COMPONENT LOG``
runs one in its own interpreter; COMPONENT is JSON.
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
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.engines.common.watchdog import Watchdog
from daybreak_server.engines.ranks.rank_deps import RankDeps
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.tasks.loops import JOBS
from daybreak_server.settings.pool_workload import workload_spec
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads import discovery
from testkit.rendezvous import FolderRendezvousStore
from verification.faults.failpoints import (
    FailingBlobs,
    FailingEvents,
    FailingQueue,
    FailingStore,
    FailingWorkload,
    Failpoints,
)

EXIT_BROKEN = 70
EXIT_UNHEALTHY = 71


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One process of the cluster."""

    kind: str
    """``gateway``, ``rank``, or ``program`` (any other program, started by ``command``)."""
    name: str
    folder: str
    """The cluster's folder, with its failpoints and logs."""
    settings: str = ""
    pool: str = ""
    rank: int = 0
    rendezvous: str = ""
    """The folder of this group's :class:`FolderRendezvousStore`; each new group has its own."""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    """Extra environment variables. If there are any, the component runs in its own interpreter, because the dynamic
    loader reads them only when a program starts."""
    has_watchdog: bool = False
    """Whether this rank is a leader with a watchdog. In production, every leader has one."""
    chance: dict[str, float] = field(default_factory=dict)
    """Failpoints that fire by chance: name → probability at each pass."""
    seed: int = 0

    def as_json(self) -> str:
        """Serialize to JSON, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Component:
        """The inverse of ``as_json``."""
        fields = json.loads(text)
        return cls(**{**fields, "command": tuple(fields["command"])})


def preload() -> None:
    """Import and read everything that components need, in the process from which they fork.

    Later edits in the working tree then do not affect the run.
    """
    library = Library()
    for script in files("daybreak_server.adapters.redis").joinpath("lua").iterdir():
        name, _, kind = script.name.partition(".")
        if kind == "lua" and not name.startswith("_"):
            library.get(name)
    pools = {name: {"workload": name, "device": "cpu"} for name in ("echo", "echo-serve")}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"data_dir": folder, "redis": {"url": "redis://127.0.0.1:1"}, "pools": pools}
        )
        build_app(wiring.build_services(settings))
    discovery.implementation(workload_spec(settings.pools["echo"]))


def run(component: Component) -> None:
    """Run this component until it ends."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {component.name}[{os.getpid()}] %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    failpoints = Failpoints(
        Path(component.folder),
        process=component.name,
        chance=component.chance,
        seed=zlib.crc32(f"{component.seed}/{os.getpid()}".encode()),
    )
    if component.kind == "gateway":
        _gateway(component, failpoints)
    else:
        _rank(component, failpoints)


def _gateway(component: Component, failpoints: Failpoints) -> None:
    settings = Settings.model_validate_json(component.settings)
    services = wiring.build_services(settings)
    store = FailingStore(services.store, failpoints)
    app = build_app(
        replace(
            services,
            store=store,
            housekeeper=store,
            events=FailingEvents(services.events, failpoints),
            blobs=FailingBlobs(services.blobs, failpoints),
        )
    )
    http = settings.http
    ApiServer(app, host=http.host, port=http.port, drain_s=http.drain_s).run()


def _rank(component: Component, failpoints: Failpoints) -> None:
    settings = Settings.model_validate_json(component.settings)
    rank = _build_rank(component, settings, failpoints)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    rank.start()
    while not stopping.wait(0.5):
        if rank.unhealthy_reason() is not None:  # Ray Serve also ends a rank whose health check fails
            os._exit(EXIT_UNHEALTHY)
    rank.stop(timeout_s=5.0 + settings.pools[component.pool].drain_s)
    os._exit(0)


def _build_rank(component: Component, settings: Settings, failpoints: Failpoints) -> Rank:
    spec = workload_spec(settings.pools[component.pool])
    if spec.kind in (PoolKind.ONLINE, PoolKind.SESSIONS):
        return wiring.build_rank(
            settings,
            component.pool,
            rank=component.rank,
            on_broken=lambda why: os._exit(EXIT_BROKEN),
            rendezvous=FolderRendezvousStore(Path(component.rendezvous)),
            label=component.name,
            with_watchdog=component.has_watchdog,
        )

    def workload() -> Any:
        return FailingWorkload(discovery.implementation(spec), failpoints)

    deps = RankDeps(
        queue=lambda: FailingQueue(wiring.build_queue(settings, component.pool), failpoints),
        blobs=lambda: FailingBlobs(wiring.build_blobs(settings), failpoints),
        workload=workload,
        on_broken=lambda why: os._exit(EXIT_BROKEN),
        rendezvous=FolderRendezvousStore(Path(component.rendezvous)),
        label=component.name,
        watchdog=(lambda: _watchdog(settings, component)) if component.has_watchdog else None,
    )
    return Rank(spec, wiring.group_config(settings, component.pool), deps, rank=component.rank, loops=JOBS)


class _KillableWatchdog(Watchdog):
    """A watchdog that writes the id of its process to a file, so that the cluster can kill this process."""

    pid_file: Path

    def start(self) -> None:
        super().start()
        process = self._process
        if process is not None:
            fresh = self.pid_file.with_suffix(".new")
            fresh.write_text(str(process.pid))
            fresh.rename(self.pid_file)


def _watchdog(settings: Settings, component: Component) -> Watchdog:
    built = wiring.build_watchdog(settings, component.pool)
    watchdog = _KillableWatchdog(built._command, config=built._config)
    built.shared.close()
    folder = Path(component.folder) / "watchdogs"
    folder.mkdir(exist_ok=True)
    watchdog.pid_file = folder / component.name
    return watchdog


def main() -> None:
    """Run the component given on the command line."""
    log = os.open(sys.argv[2], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    run(Component.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
