"""A real run in which everything happens that a dashboard shows:

* a wake, a rank that dies, and a group that drains;
* tasks that succeed, fail, are cancelled and are retried, and streams of their events;
* requests to a group and to a model, batches, and requests that are refused;
* streaming sessions.

The run is ``daybreakd up`` with a separate Redis. Prometheus and Alertmanager watch it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId, new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import EventDraft, Finished
from daybreak_server.local import observe
from testkit import observed_requests, observed_sessions, valkey
from testkit.observed_models import ObservedModels
from testkit.observed_requests import ObservedRequests
from testkit.observed_sessions import ObservedSessions
from testkit.prometheus import Watch
from testkit.system import System, read, request, try_request
from testkit.waiting import wait_until

POOL = "echo"
MEMORY_LIMIT = 64 * 1024 * 1024
"""The memory limit of Redis, in bytes."""
PARKED = "parked"
"""A pool without groups: its tasks wait."""
BATCHES = "batches"
"""A pool of ``testkit.batch_echo`` whose one group computes batches of :data:`BATCH` items, and lets at most
:data:`ITEMS` items wait."""
BATCH, ITEMS = 4, 40
_SETTINGS = {
    "POOLS__BATCHES__WORKLOAD": "testkit.batch_echo:SPEC",
    "POOLS__BATCHES__BATCHING__MAX_BATCH_SIZE": str(BATCH),
    "POOLS__BATCHES__BATCHING__MAX_WAITING": str(ITEMS),
    "POOLS__BATCHES__CPUS_PER_RANK": "0.25",
    **observed_requests.SETTINGS,
    "POOLS__ECHO__WORKLOAD": "echo",
    "POOLS__ECHO__RANKS": "2",
    "POOLS__ECHO__GROUPS": "2",
    "POOLS__ECHO__CPUS_PER_RANK": "0.25",
    "POOLS__ECHO__RETENTION_S": "30",
    "POOLS__ECHO__DRAIN_S": "1",
    "POOLS__ECHO__LEASE__LEASE_S": "4",
    "POOLS__ECHO__LEASE__STALL_S": "6",
    "POOLS__PARKED__WORKLOAD": "echo",
    "POOLS__PARKED__GROUPS": "0",
    **observed_sessions.SETTINGS,
    "TENANTS__ACME__WEIGHT": "2",
    "REDIS__TIMEOUT_S": "0.5",
}
_REPORT_MS = "1000"
_MODULES = Path(__file__).parents[1]
"""The folder that contains the package ``testkit``. The groups import workloads from this package."""


class ObservedRun:
    """The system, its Redis, and the Prometheus and Alertmanager that watch the system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = valkey.start_valkey(folder / "redis")
        with contextlib.closing(self.redis.client()) as client:
            client.config_set("maxmemory", MEMORY_LIMIT)
        variables = {f"DAYBREAK_{name}": value for name, value in _SETTINGS.items()}
        self.files = folder / "texts"
        self.files.mkdir()
        variables["DAYBREAK_POOLS__BATCHES__BULK__PLACES"] = json.dumps({"texts": self.files.as_uri()})
        variables["DAYBREAK_REDIS__URL"] = self.redis.url
        self.system = System(
            "up",
            folder / "d",
            HOME=str(folder),
            RAY_metrics_report_interval_ms=_REPORT_MS,
            PYTHONPATH=os.pathsep.join(filter(None, (str(_MODULES), os.environ.get("PYTHONPATH", "")))),
            **variables,
        )
        self._models: ObservedModels | None = None
        self.watch = Watch(folder / "watch")
        self.marks: list[tuple[float, str]] = []
        """What happened, and when, in seconds since the watch began. Pictures of the run show these marks."""

    @property
    def models(self) -> ObservedModels:
        """The models on a worker. The first use starts the worker."""
        if self._models is None:
            self._models = ObservedModels(self.folder, gateway=self.system.url, redis=self.redis.url)
        return self._models

    @property
    def requests(self) -> ObservedRequests:
        """The clients of groups that answer requests."""
        return ObservedRequests(self.system.url)

    @property
    def sessions(self) -> ObservedSessions:
        """The clients of streaming sessions."""
        return ObservedSessions(self.system.url)

    @property
    def ray_targets(self) -> Path:
        return self.system.folder / "prometheus" / observe.RAY_TARGETS

    def start(self) -> None:
        """Watch the system from the moment at which it accepts tasks, and wait for its groups."""
        wait_until(self.system.state, 300, f"the gateway; see {self.system.output}")
        self.watch.start(gateway=self.system.url, ray=self.ray_targets)
        early = self.submit(steps=1)
        self.system.ready(800)
        self.system.wait(early)
        # A rate needs a sample from before the first event, and Ray exports a new process's metrics only after a while.
        pools = {POOL, BATCHES, observed_requests.ANSWERS, observed_sessions.SPEECH}
        wait_until(lambda: self._exported() >= pools, 480, "metrics of a rank of each pool")

    def _exported(self) -> set[str]:
        """The pools that have at least one rank whose metrics are in Prometheus."""
        series = self.watch.now('count by (pool) ({__name__=~"daybreak_rank_.+"})')
        return {each["metric"]["pool"] for each in series}

    def close(self) -> None:
        if self._models is not None:
            self._models.close()
        self.watch.stop()
        self.system.end()
        self.redis.kill()

    # ── what clients do ──────────────────────────────────────────────────────────────────────────────────

    def submit(
        self, *, pool: str = POOL, tenant: str = "", more: dict[str, Any] | None = None, **task: Any
    ) -> str:
        """Submit a task. ``task``: its input. ``more``: the other fields of the request. :returns: the task's id."""
        return self.post("/v1/tasks", {"pool": pool, "input": task, **(more or {})}, tenant=tenant)["id"]

    def post(self, path: str, body: dict[str, Any], *, tenant: str = "") -> Any:
        return request(self.system.url + path, body, **({"Daybreak-Tenant": tenant} if tenant else {}))

    def refused(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """The status of a request that must fail."""
        data = None if body is None else json.dumps(body).encode()
        outgoing = urllib.request.Request(
            self.system.url + path, data=data, method=method, headers={"content-type": "application/json"}
        )
        try:
            urllib.request.urlopen(outgoing, timeout=30).close()
        except urllib.error.HTTPError as exc:
            return exc.code
        raise AssertionError(f"{method} {path} succeeded")

    def read_stream(self, task: str, *, after: str = "") -> list[str]:
        """The types of all events of a task, in order. Waits for the last event."""
        url = f"{self.system.url}/v1/tasks/{task}/events" + (f"?after={after}" if after else "")
        lines = read(urllib.request.Request(url), timeout_s=120).decode().splitlines()
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]

    def trimmed(self) -> tuple[str, str]:
        """An ended task of the pool :data:`PARKED`, and the id of an event that its history no longer has."""
        task = self.submit(pool=PARKED)
        events = read(
            urllib.request.Request(f"{self.system.url}/v1/tasks/{task}/events?follow=false")
        ).decode()
        first = next(line[4:] for line in events.splitlines() if line.startswith("id: "))
        group = GroupRecord(id=new_group_id(), state=GroupState.IDLE)
        with contextlib.closing(RedisQueue(Endpoint(url=self.redis.url), pool=PARKED)) as queue:
            queue.register(group, ttl_s=60)
            claim = queue.claim(group, wait_s=30)
            assert claim is not None
            for _ in range(6):
                queue.report(claim.lease, [EventDraft(type="log", data={"message": "x"})] * 250)
            queue.settle(claim.lease, Finished(artifacts=()))
            queue.deregister(group)
        return task, first

    def running(self, **task: Any) -> str:
        """Submit a task, and wait until it runs and has reported a step."""
        number = self.submit(**task)
        wait_until(
            lambda: (try_request(f"{self.system.url}/v1/tasks/{number}") or {}).get("progress"), 480, "a step"
        )
        return number

    def groups(self) -> list[dict[str, Any]]:
        """The groups of the pool :data:`POOL` that are ready."""
        shown = request(f"{self.system.url}/v1/pools/{POOL}")["groups"]
        return [group for group in shown if group["state"] in {"idle", "busy"}]

    def holder(self, task: str) -> dict[str, Any]:
        """The group that runs the task."""

        def look() -> dict[str, Any] | None:
            holders = (g for g in self.groups() if any(task.endswith(held) for held in g["tasks"]))
            return next(holders, None)

        return wait_until(look, 30, f"the group of {task}")

    def wait_groups(self) -> None:
        wait_until(lambda: len(self.groups()) == 2, 180, "both groups")

    def drain(self, group: str, *, pool: str = POOL, on: bool = True) -> None:
        """Mark a group to drain, as the operator does before it removes the group. ``on=False``: remove the mark."""

        async def mark() -> None:
            store = RedisStore(Endpoint(url=self.redis.url))
            try:
                assert await store.drain(pool, GroupId(group), on=on)
            finally:
                await store.close()

        asyncio.run(mark())

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────

    def play(self, *, at_once: bool = True) -> None:
        """Make everything happen that the dashboards show.

        :param at_once: Whether the parts run at the same time, which is faster. Otherwise they run one after the other,
            so that a picture shows what caused what.
        """
        tasks = (
            ("tasks that succeed", self._successes),
            ("failures, retries, and a rank that dies", self._failures_and_retries),
            ("cancels", self._cancels),
            ("streams and refused requests", self._streams_and_refusals),
            ("tasks of two tenants", self._tenants_that_wait),
            ("a group drains", self._a_drain),
        )
        sessions = (
            ("streaming sessions", self.sessions.play),
            ("sessions move", lambda: self.sessions.move(self.drain)),
        )
        parts: tuple[tuple[tuple[str, Callable[[], object]], ...], ...] = (
            tasks,
            (("requests to a group", self.requests.play),),
            (("batches", self._batches),),
            (("a request to a model on a worker", self.models.ask),),
            sessions,
        )

        def play_part(part: tuple[tuple[str, Callable[[], object]], ...]) -> None:
            for what, act in part:
                self.marks.append((time.time() - self.watch.started, what))
                act()

        with ThreadPoolExecutor(len(parts) if at_once else 1) as threads:
            list(threads.map(play_part, parts))
        wait_until(lambda: try_request(f"{self.system.state()['api_url']}/v1/pools"), 180, "APIEntrypoint")

    def _successes(self) -> None:
        for number in range(3):
            self.system.wait(self.submit(steps=10, step_s=0.05, all_ranks=True, preview=number == 0))
        ids = [
            self.submit(steps=5, step_s=0.1, more={"priority": priority})
            for priority in ("low", "normal", "high", "normal")
        ]
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
        ids.append(self.submit(steps=1, more={"start_at": soon.isoformat()}))
        for number in ids:
            self.system.wait(number)

    def _failures_and_retries(self) -> None:
        self.system.wait(self.submit(steps=3, step_s=0.1, fail_at=2, fail_kind="permanent"), "failed")
        self.system.wait(self.submit(steps=3, step_s=0.1, fail_at=2, fail_kind="error", fail_attempts=1))
        self.system.wait(self.submit(steps=3, step_s=0.1, fail_at=2, fail_kind="exit", fail_attempts=1))
        self.wait_groups()

    def _cancels(self) -> None:
        for _ in range(3):
            number = self.running(steps=200, step_s=0.1)
            self.post(f"/v1/tasks/{number}/cancel", {})
            self.system.wait(number, "cancelled")

    def _streams_and_refusals(self) -> None:
        number = self.submit(steps=30, step_s=0.1)
        assert self.read_stream(number)[-1] == "succeeded"
        assert self.read_stream(number, after="9999999999999-0")[0] == "reset"
        unknown, invalid = "/v1/tasks/echo_01JD0000000000000000000000", {"pool": POOL, "input": {"steps": -1}}
        wait_until(lambda: self.refused("GET", unknown) == 404, 60, "404")
        wait_until(lambda: self.refused("POST", "/v1/tasks", invalid) == 422, 60, "422")

    def _batches(self) -> None:
        """Send requests that share batches, requests whose texts are in the cache, tasks whose texts fill up batches,
        requests whose batch fails, and requests that are refused. The first three kinds are sent in several
        rounds, so that Prometheus can compute rates."""
        self.requests.answering_group(BATCHES)
        (self.files / "texts.jsonl").write_text('"a cat"\n' * 200 + "0\n")
        file = {"place": "texts", "path": "texts.jsonl"}
        for _ in range(8):
            assert set(self.requests.ask_often(2 * BATCH, pool=BATCHES, texts=["a text"], batch_s=0.3)) == {
                200
            }
            assert self.requests.ask(pool=BATCHES, texts=["a cat", "a dog"], cached=True) == 200
            self.system.wait(self.submit(pool=BATCHES, file=file))
        assert set(self.requests.ask_often(BATCH, pool=BATCHES, texts=["a text"], fails=True)) == {500}
        # The first of these requests leaves too few places for the others. All must be sent before the first one ends.
        many = ["a text"] * (ITEMS - BATCH)
        statuses = set(self.requests.ask_often(4, pool=BATCHES, texts=many, batch_s=0.5))
        assert statuses == {200, 429}, statuses

    def _tenants_that_wait(self) -> None:
        ids = [
            self.submit(tenant=tenant, steps=8, step_s=0.25)
            for _ in range(4)
            for tenant in ("acme", "umbrella")
        ]
        for tenant, number in zip(("acme", "umbrella") * 4, ids, strict=True):
            self._ended(number, tenant)

    def _ended(self, number: str, tenant: str) -> None:
        url, headers = f"{self.system.url}/v1/tasks/{number}", {"Daybreak-Tenant": tenant}
        wait_until(lambda: request(url, **headers).get("finished_at"), 180, f"the end of {number}")

    def _a_drain(self) -> None:
        self.wait_groups()
        number = self.running(steps=60, step_s=0.1)
        group = str(self.holder(number)["id"])
        self.drain(group)
        self.system.wait(number)
        self.drain(group, on=False)
        self.wait_groups()


@contextlib.contextmanager
def observed_run(folder: Path) -> Iterator[ObservedRun]:
    """A run that has started. It ends when the context ends."""
    run = ObservedRun(folder)
    try:
        run.start()
        yield run
    finally:
        run.close()
