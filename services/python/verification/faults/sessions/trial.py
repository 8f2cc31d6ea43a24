"""A cluster with a pool of simulated speech, the clients that speak to it, and the rows that every scenario
reports."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.waiting import wait_until
from verification.faults.cluster import FaultCluster
from verification.faults.history import read
from verification.faults.options import PoolOptions
from verification.faults.replicas import Target
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError
from verification.faults.sessions.checker import SessionsSeen, check, gather, owners
from verification.faults.sessions.client import Script, SpeechClient
from verification.results import Row

POOL = "speech"
LEASE_S = 3.0
CHUNK_S = 0.48
READY_S = 90.0


class Clients:
    """Runs the clients on a thread with an event loop of its own. A context manager."""

    def __init__(self, cluster: FaultCluster, scripts: Sequence[Script], *, seed: int) -> None:
        self._cluster = cluster
        self.all = [SpeechClient(script, cluster.urls, POOL, cluster.history, seed) for script in scripts]
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="speakers", daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(READY_S)

    def wait_for_texts(self, count: int, *, what: str = "all") -> None:
        """Wait until each client has received ``count`` pieces of text, or until all clients have ended.

        If ``what`` is ``any``, one client with ``count`` pieces is enough.
        """
        every = all if what == "all" else any
        wait_until(
            lambda: not self._thread.is_alive() or every(client.texts >= count for client in self.all),
            READY_S,
            f"{count} pieces of text",
        )

    def finish(self) -> None:
        """Wait until all clients have ended.

        :raises ExceptionGroup: with the errors of the clients that failed, such as ``NoEndError``.
        :raises TimeoutError: if a client still runs after twice ``READY_S``.
        """
        self._thread.join(2 * READY_S)
        if self._failed is not None:
            raise self._failed
        if self._thread.is_alive():
            raise TimeoutError("the clients have not ended")
        self._cluster.history.note("load", kind="end")
        self._cluster.history.flush()

    def _run(self) -> None:
        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for client in self.all:
                    group.create_task(client.run())

        try:
            asyncio.run(run())
        except BaseException as exc:
            self._failed = exc


@dataclass(frozen=True, slots=True)
class SessionTrial:
    """A running cluster, and its clients."""

    cluster: FaultCluster
    clients: Clients

    def targets(self, kind: str) -> Sequence[Target]:
        """The processes of a kind that are at work now, sorted by name."""
        return sorted(self.cluster.at_work(kind), key=lambda target: target.name)

    def target(self, kind: str, name: str) -> Target:
        """Wait until the process with this name is at work, and return it."""
        found: list[Target] = []

        def works() -> bool:
            found[:] = [target for target in self.targets(kind) if target.name == name]
            return bool(found)

        wait_until(works, READY_S, f"{name}; see {self.cluster.folder}/logs")
        return found[0]

    def busiest(self) -> Target:
        """The leader of the group with the most sessions."""
        groups = {int(pid): sessions for pid, (_, sessions) in self.groups().items()}
        return max(self.targets("leader"), key=lambda target: groups.get(target.pid, 0))

    def groups(self) -> Mapping[int, tuple[str, int]]:
        """Maps the process id of each rank to a pair: the id of its group, and how many sessions this group owns."""
        keys, found = self.cluster.keys(POOL), {}
        with self.cluster.client() as client:
            for group in self.cluster.ready_groups(POOL):
                owned = client.scard(keys.of("group_sessions", group))
                pids = client.hget(keys.of("group", group), "pids") or "[]"
                found.update({int(pid): (group, owned) for pid in pids.strip("[]").split(",") if pid})
        return found

    def decide(self) -> SessionsSeen:
        """Wait until the clients end, and check their history. :raises ViolatedError: if a promise was broken."""
        self.clients.finish()
        return judge(self.cluster.history.path)


@contextlib.contextmanager
def trial(
    context: ScenarioContext,
    scripts: Sequence[Script],
    *,
    groups: int = 3,
    model: Mapping[str, Any] | None = None,
    sessions: Mapping[str, Any] | None = None,
    drain_s: float = 5.0,
    **options: Any,
) -> Iterator[SessionTrial]:
    """Run a cluster with two gateways, and clients that have begun to speak to it.

    The latency multiplier stays 1, because turns of another length would lead to another text.
    """
    pool = PoolOptions(
        name=POOL,
        workload="simulated-speech",
        groups=groups,
        settings={
            "drain_s": drain_s,
            "options": dict(model or {}),
            "sessions": {"max_latency_multiplier": 1, **(sessions or {})},
        },
    )
    with (
        context.cluster(pools=(pool,), lease_s=LEASE_S, **options) as cluster,
        Clients(cluster, scripts, seed=context.seed) as clients,
    ):
        yield SessionTrial(cluster, clients)


def judge(path: Path) -> SessionsSeen:
    """Check a history. :raises ViolatedError: if a promise was broken."""
    verdict = check(read(path))
    if not verdict.ok:
        raise ViolatedError(
            f"{verdict.text()}\nhistory: {path}\n"
            f"to check it again: python -m verification.faults.sessions --check {path}"
        )
    return gather(read(path))


def text_row(what: str, seen: SessionsSeen, *, faults: str) -> Row:
    """The row that says that no session lost audio or repeated words."""
    connections = sum(len(session.of("ready")) for session in seen.sessions.values())
    return Row(
        f"{what}: sessions whose text is not exactly that of an undisturbed session",
        0,
        "sessions",
        target="0",
        held=True,
        note=f"of {len(seen.sessions)}; {faults}; takeovers by another group: {owners(seen)}; "
        f"connections: {connections}",
    )


def gap_row(what: str, seen: SessionsSeen, *, limit_s: float, bound: str) -> Row:
    """The row with the longest time without text that any session had after the first fault."""
    first = min((line["t"] for line in seen.faults), default=0.0)
    longest = max(session.longest_gap(first) for session in seen.sessions.values())
    return Row(
        f"{what}: longest time without text in a session",
        round(longest, 2),
        "s",
        target=f"≤ {limit_s:.2f} ({bound})",
        held=longest <= limit_s,
    )
