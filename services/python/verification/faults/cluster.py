"""The system under test: a real Redis server, gateways and groups on this machine, restarted when they die.

Here, a replica is the server, one gateway or one group with all its ranks. One supervisor thread does what Kubernetes
and Ray Serve do in production: it reads ended processes from ``Processes.ended`` and restarts their replicas.

* A gateway restarts on its port; the server restarts on its port with its data.
* When a rank ends, the supervisor starts a whole new group at once. The other ranks of the old group have
  ``LINGER_S`` to end by themselves; then the supervisor kills them. Each new group has its own
  rendezvous folder, so old and new ranks never meet.
* A replica that ends right after its start restarts only after a pause, so that a broken one does not take all CPU.
* A replica on hold (``hold``) is not restarted until ``release``.

``targets`` lists the processes that a fault may hit; ``at_work`` lists only those that have finished starting.
Nothing here submits or reads a task.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import redis

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.domain.pools import GroupState
from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import Settings
from testkit.waiting import wait_until
from verification.faults import server
from verification.faults.components import Component
from verification.faults.history import History
from verification.faults.options import ClusterOptions
from verification.faults.processes import Processes, is_watchdog, kill_watchdog
from verification.faults.replicas import Replica, Target

LINGER_S = 8.0
"""How long the ranks of a broken group may take to end by themselves. The gang's own grace period is 5 s."""
_RESTART_PAUSE_S = 0.3
"""If a replica ends within this time after its start, it restarts only after a pause of this length."""


class FaultCluster:
    """A context manager that runs a server, gateways and groups as processes.

    :raises LookupError: if the server's program is not installed.
    """

    def __init__(self, options: ClusterOptions | None = None) -> None:
        self.options = options or ClusterOptions()
        is_temporary = self.options.folder is None
        self.folder = self.options.folder or Path(tempfile.mkdtemp(prefix="daybreak-faults-"))
        self.keep = not is_temporary
        """Whether to keep the folder when the cluster ends."""
        for name in ("armed", "logs", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.history = History(self.folder / "history.jsonl", seed=self.options.seed)
        self.port = free_port()
        self._server = Replica(name="server", kind="server", port=self.port)
        self._gateways = [
            Replica(name=f"gateway-{index}", kind="gateway", port=free_port())
            for index in range(self.options.gateways)
        ]
        self._groups = [
            Replica(name=f"{pool.name}-{index}", kind="group", pool=pool)
            for pool in self.options.pools
            for index in range(pool.groups)
        ]
        self._urls: list[str] | None = None
        self._lock = threading.RLock()
        self._replica_of: dict[int, Replica] = {}
        self._lingering: dict[int, float] = {}
        self._delayed: list[tuple[float, Replica]] = []
        self._held: set[str] = set()
        self._stopping = threading.Event()
        self.processes: Processes
        self.settings: Settings
        self.redis_url = f"redis://127.0.0.1:{self.port}"
        """The URL of the server itself. It bypasses any proxy between the server and the components."""

    # ── start and end ────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        several = any(pool.ranks > 1 for pool in self.options.pools)
        preload = ("torch.distributed", "daybreak_server.engines.ranks.process_group") if several else ()
        self.processes = Processes(logs=self.folder / "logs", preload=preload)
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        try:
            self._start(self._server)
            wait_until(lambda: server.answers(self.port), 60, f"the server; see {self.folder / 'logs'}")
            url = self.options.redis_via(self.port) if self.options.redis_via else self.redis_url
            self.settings = self.options.daybreak_settings(folder=self.folder, redis_url=url)
            groups_via = self.options.groups_redis_via
            groups_url = groups_via(self.port) if groups_via else url
            groups_redis = self.settings.redis.model_copy(update={"url": groups_url})
            self._groups_settings = self.settings.model_copy(update={"redis": groups_redis})
            self._supervisor.start()
            for replica in (*self._gateways, *self._groups):
                self._start(replica)
            self.wait_ready()
        except BaseException:
            self.keep = True
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.keep = self.keep or kind is not None
        self.close()

    def close(self) -> None:
        """Kill everything that still runs."""
        self._stopping.set()
        self.processes.close()
        for path in (self.folder / "watchdogs").glob("*"):
            if watchdog := self._watchdog_of(path.name):
                kill_watchdog(watchdog)
        if self._supervisor.is_alive():
            self._supervisor.join(10)
        self.history.close()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every gateway responds, and in every pool all groups accept tasks."""
        for replica in self._gateways:
            wait_until(
                lambda port=replica.port: server.gateway_answers(port),
                timeout_s,
                f"{replica.name}; see {self.folder}/logs",
            )
        for pool in self.options.pools:
            if pool.groups:
                wait_until(
                    lambda pool=pool: len(self.ready_groups(pool.name)) >= pool.groups,
                    timeout_s,
                    f"the groups of {pool.name}; see {self.folder}/logs",
                )

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def urls(self) -> list[str]:
        """The URL of every gateway, as clients reach it."""
        if self._urls is None:
            url_of = self.options.gateways_via or (lambda port: f"http://127.0.0.1:{port}")
            self._urls = [url_of(replica.port) for replica in self._gateways]
        return self._urls

    @contextlib.contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A plain Redis client, which bypasses any proxy, to inspect the keys."""
        client = redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()

    def keys(self, pool: str) -> Keys:
        """The names of a pool's keys."""
        return Keys(prefix=self.settings.redis.prefix, pool=pool)

    def ready_groups(self, pool: str) -> list[str]:
        """The ids of the groups that accept tasks, according to the store."""
        keys, ready = self.keys(pool), []
        with self.client() as client:
            for group in client.zrange(keys.single("groups"), 0, -1):
                state = client.hget(keys.of("group", group), "state")
                if state is not None and GroupState(state).accepts_tasks:
                    ready.append(group)
        return ready

    def at_work(self, kind: str) -> list[Target]:
        """The processes of a kind that have finished starting: they respond, or their group accepts tasks.

        A fault during the start of a process tests little, and on a slow machine such faults stop all progress.
        """
        targets = self.targets(kind)
        if kind == "server":
            return [target for target in targets if server.answers(self.port)]
        if kind == "gateway":
            ports = {replica.name: replica.port for replica in self._gateways}
            return [target for target in targets if server.gateway_answers(ports[target.name])]
        if not server.answers(self.port):
            return []
        ready = {pid for pool in self.options.pools for pid in self._ready_pids(pool.name)}
        if kind != "watchdog":
            return [target for target in targets if target.pid in ready]
        leaders = {target.name for target in self.targets("leader") if target.pid in ready}
        return [target for target in targets if target.name.removesuffix("-watchdog") in leaders]

    def _ready_pids(self, pool: str) -> set[int]:
        keys, pids = self.keys(pool), set[int]()
        with self.client() as client:
            for group in self.ready_groups(pool):
                pids.update(
                    int(pid) for pid in json.loads(client.hget(keys.of("group", group), "pids") or "[]")
                )
        return pids

    def targets(self, *kinds: str, pool: str | None = None) -> list[Target]:
        """The running processes of these kinds, or of all kinds if none is given. With ``pool``, the groups of other
        pools are left out."""
        with self._lock:
            targets = [
                Target(kind=replica.kind, name=replica.name, pid=replica.pids[0])
                for replica in (self._server, *self._gateways)
                if replica.pids
            ]
            for replica in self._groups:
                if pool is not None and (replica.pool is None or replica.pool.name != pool):
                    continue
                for rank, pid in replica.pids.items():
                    name = f"{replica.name}.{rank}"
                    targets.append(Target(kind="follower" if rank else "leader", name=name, pid=pid))
                    if (watchdog := self._watchdog_of(name)) is not None:
                        targets.append(Target(kind="watchdog", name=f"{name}-watchdog", pid=watchdog))
        return [target for target in targets if not kinds or target.kind in kinds]

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, target: Target, *, down_s: float = 0.0, written: bool = True) -> bool:
        """Send SIGKILL and wait until the process is gone. Its replica restarts after ``down_s``.
        ``written``: before Valkey is killed, wait until its file has every write that it has acknowledged.
        :returns: whether the process existed."""
        if target.kind == "server" and written:
            server.wait_until_written(self.port)
        if down_s:
            self.hold(target.name.partition(".")[0], for_s=down_s)
        killed = kill_watchdog(target.pid) if target.kind == "watchdog" else self.processes.kill(target.pid)
        if killed:
            self.history.note(
                "fault", kind=f"kill-{target.kind}", name=target.name, pid=target.pid, down_s=down_s
            )
        return killed

    def freeze(self, target: Target) -> bool:
        """Send SIGSTOP."""
        return self._signal(target, signal.SIGSTOP, "freeze")

    def thaw(self, target: Target) -> bool:
        """Send SIGCONT."""
        return self._signal(target, signal.SIGCONT, "thaw")

    def preempt(self, target: Target) -> bool:
        """Send SIGTERM. A group that has a task then releases it. The replica ends, and restarts unless on hold."""
        return self._signal(target, signal.SIGTERM, "preempt")

    def arm(self, point: str, *, passes: int = 0) -> None:
        """Arm a failpoint. Nothing happens the first ``passes`` times that a process reaches it. The next process that
        reaches it disarms it and then kills itself."""
        (self.folder / "armed" / f"{point}.{passes}").touch()

    def disarm(self) -> list[str]:
        """Disarm the failpoints that were armed and have not fired. :returns: their names."""
        unfired = sorted((self.folder / "armed").iterdir())
        for path in unfired:
            path.unlink(missing_ok=True)
        return [path.name.rpartition(".")[0] for path in unfired]

    def hits(self) -> list[tuple[str, str, int]]:
        """The failpoints that have fired: point, process, pid."""
        try:
            lines = (self.folder / "hits").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(point, process, int(pid)) for point, process, pid, _ in (line.split() for line in lines)]

    def hold(self, name: str, *, for_s: float | None = None) -> None:
        """Do not restart a replica (``server``, ``gateway-0``, ``solo-1``) when it ends, for ``for_s`` seconds or
        until ``release``."""
        with self._lock:
            self._held.add(name)
        if for_s is not None:
            timer = threading.Timer(for_s, self.release, (name,))
            timer.daemon = True
            timer.start()

    def release(self, *names: str) -> None:
        """End the hold of these replicas, or of all if none is given. Start those that have ended."""
        with self._lock:
            freed = set(names) or set(self._held)
            self._held -= freed
            for replica in (self._server, *self._gateways, *self._groups):
                if replica.name in freed and not replica.pids and not self._stopping.is_set():
                    self._start(replica)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _signal(self, target: Target, number: int, what: str) -> bool:
        existed = self.processes.signal(target.pid, number)
        if existed:
            self.history.note("fault", kind=f"{what}-{target.kind}", name=target.name, pid=target.pid)
        return existed

    def _start(self, replica: Replica) -> None:
        with self._lock:
            replica.starts += 1
            replica.started = time.monotonic()
            replica.pids = {
                rank: self.processes.start(self._component(replica, rank))
                for rank in range(replica.pool.ranks if replica.pool else 1)
            }
            self._replica_of.update(dict.fromkeys(replica.pids.values(), replica))
            for rank, pid in replica.pids.items():
                self.history.note("component", kind="started", name=replica.name, rank=rank, pid=pid)

    def _component(self, replica: Replica, rank: int) -> Component:
        name = f"{replica.name}.{rank}" if replica.pool else replica.name
        common: dict[str, Any] = {
            "name": name,
            "folder": str(self.folder),
            "environment": self._environment(name),
            "chance": dict(self.options.chance),
            "seed": self.options.seed,
        }
        if replica.kind == "server":
            folder = self.options.server_folder or self.folder / "server"
            folder.mkdir(parents=True, exist_ok=True)
            command = server.command(
                flavour=self.options.flavour,
                port=replica.port,
                folder=folder,
                fsync=self.options.fsync,
                config=self.options.server,
            )
            return Component(kind="program", command=command, **common)
        if replica.kind == "gateway":
            http = self.settings.http.model_copy(update={"port": replica.port})
            settings = self.settings.model_copy(update={"http": http})
            return Component(kind="gateway", settings=settings.model_dump_json(), **common)
        assert replica.pool is not None
        rendezvous = self.folder / "rendezvous" / f"{replica.name}-{replica.starts}"
        return Component(
            kind="rank",
            settings=self._groups_settings.model_dump_json(),
            pool=replica.pool.name,
            rank=rank,
            has_watchdog=self.options.watchdogs and rank == 0,
            rendezvous=str(rendezvous),
            **common,
        )

    def _watchdog_of(self, name: str) -> int | None:
        try:
            pid = int((self.folder / "watchdogs" / name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_watchdog(pid) else None

    def _environment(self, name: str) -> dict[str, str]:
        environment: dict[str, str] = {}
        for prefix, variables in self.options.environment.items():
            if name.startswith(prefix):
                environment.update(variables)
        return environment

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                self._on_end(*self.processes.ended.get(timeout=0.05))
            now = time.monotonic()
            with self._lock:
                due = [replica for at, replica in self._delayed if at <= now]
                self._delayed = [(at, replica) for at, replica in self._delayed if at > now]
                for replica in due:
                    if not replica.pids and replica.name not in self._held:
                        self._start(replica)
                late = [pid for pid, until in self._lingering.items() if until <= now]
            for pid in late:
                self.processes.signal(pid, signal.SIGKILL)

    def _on_end(self, pid: int, status: int) -> None:
        with self._lock:
            replica = self._replica_of.pop(pid, None)
            self._lingering.pop(pid, None)
            self.history.note(
                "component", kind="ended", name=replica.name if replica else "?", pid=pid, status=status
            )
            if replica is None or pid not in replica.pids.values() or self._stopping.is_set():
                return
            until = time.monotonic() + LINGER_S
            self._lingering.update(
                {other_pid: until for other_pid in replica.pids.values() if other_pid != pid}
            )
            replica.pids = {}
            if replica.name in self._held:
                return
            if time.monotonic() - replica.started < _RESTART_PAUSE_S:
                self._delayed.append((time.monotonic() + _RESTART_PAUSE_S, replica))
            else:
                self._start(replica)
