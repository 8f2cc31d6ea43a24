"""The faults in a whole system, one case each. Every case waits until the system is healthy again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from testkit.processes import alive
from testkit.valkey import wait_until_written
from testkit.waiting import wait_until
from verification.faults.scenario_catalogue import ViolatedError
from verification.faults.system.trial import (
    LATEST_S,
    SMALL,
    Bench,
    Recovery,
    counted,
    follow,
    freeze,
    hit_group,
    kill,
)
from verification.faults.system.watching import Watcher
from verification.results import Row

LEASE_S = 4.0
STALL_S = 12.0
DETECT_S = 5.0
COLD = "cold start of the same pool in this run: from Ray ready to all its groups ready"
VIDEO: dict[str, Any] = {"prompt": "a red circle moving left", "seed": 7, "steps": 160, "size": "64x64"}
LONG_ECHO: dict[str, Any] = {"message": "on", "steps": 100, "step_s": 0.05}

Run = Callable[[Bench], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case. ``quick`` cases are also in the short run."""

    name: str
    run: Run
    quick: bool
    pools: frozenset[str]


CASES: dict[str, Case] = {}


def case(name: str, *pools: str, quick: bool = False) -> Callable[[Run], Run]:
    """Register a case with the pools that it needs."""

    def register(run: Run) -> Run:
        CASES[name] = Case(name=name, run=run, quick=quick, pools=frozenset(pools))
        return run

    return register


# ── ranks ────────────────────────────────────────────────────────────────────────────────────────────────


@case("follower", "video", "echo", quick=True)
def follower_killed(bench: Bench) -> list[Row]:
    """Kill rank 1 of 2 in the middle of a video."""
    return _rank_killed(bench, rank=1, name="follower")


@case("leader", "video", "echo")
def leader_killed(bench: Bench) -> list[Row]:
    """Kill rank 0 of 2 in the middle of a video."""
    return _rank_killed(bench, rank=0, name="leader")


def _rank_killed(bench: Bench, *, rank: int, name: str) -> list[Row]:
    with bench.with_other_tasks():
        recovery = hit_group(bench, "video", bench.submit("video", **VIDEO), rank=rank, step=80, what=name)
    resumed = (recovery.task.get("progress") or {}).get("resumed_from_step") or recovery.task.get(
        "resumed_from_step"
    )
    cold = bench.cold_s["video"]
    if recovery.task["strikes"] != 1:
        raise ViolatedError(f"a killed {name} caused {recovery.task['strikes']} strikes, expected 1")
    note = f"{recovery.how}, resumed from step {resumed}, same MP4 SHA-256"
    return [
        Row(f"Killed {name} of a video group: time until its attempt ends", recovery.detect_s, "s",
            target=f"≤ {DETECT_S:g} s", held=recovery.detect_s <= DETECT_S, note=note),
        Row(f"Killed {name} of a video group: time until the group is ready again", recovery.ready_s, "s",
            baseline=cold, baseline_what=COLD, target="≤ 2 × cold start", held=recovery.ready_s <= 2 * cold),
    ]  # fmt: skip


@case("stopped-leader", "echo", quick=True)
def leader_stopped(bench: Bench) -> list[Row]:
    """Stop a leader for twice the lease: another group takes its task, and the leader's late writes are refused."""
    task = bench.submit("echo", **LONG_ECHO)
    group = bench.busy("echo", task, step=20)
    with Watcher(bench.up, "echo", task) as watcher:
        at = time.monotonic()
        freeze(bench, group["pids"][0], for_s=2 * LEASE_S)
        lost_s = watcher.first(lambda s: s.strikes == 1, since=at, timeout_s=LATEST_S, what="the lost lease")
    ended = bench.succeeded(task)
    if (ended["attempt"], ended["strikes"]) != (2, 1):
        raise ViolatedError(
            f"a stopped leader caused {ended['attempt']} attempts and {ended['strikes']} strikes"
        )
    bench.wait_healthy()
    bound = 1.5 * LEASE_S + 1  # a tick each second
    return [
        Row("Leader stopped (SIGSTOP) for 2 × lease: time until its task gets a strike", lost_s, "s",
            baseline=LEASE_S, baseline_what="the lease", target="≤ 1.5 × lease + 1 s (one tick)", held=lost_s <= bound,
            note=f"{ended['attempt']} attempts, 1 strike; the store refused its writes after it resumed"),
    ]  # fmt: skip


# ── single processes ────────────────────────────────────────────────────────────────────────────────────────────────


def _component_killed(
    bench: Bench,
    component: str,
    *,
    name: str,
    back: Callable[[int], bool] | None = None,
    attempts: tuple[int, ...] = (1,),
) -> list[Row]:
    """Kill the process of a component while a task runs, and wait until a new one responds."""
    task = bench.submit("echo", **LONG_ECHO)
    bench.busy("echo", task, step=20)
    (old,) = bench.up.find(component)
    with bench.with_other_tasks():
        if component == "valkey":
            with bench.up.client() as client:
                wait_until_written(client)
        at = kill(bench, [old], component)
        wait_until(
            lambda: _other(bench, component, old, back), LATEST_S, f"another {name}; see {bench.up.logs()}"
        )
        back_s = time.monotonic() - at
    ended = bench.succeeded(task)
    if ended["attempt"] not in attempts:
        raise ViolatedError(
            f"a killed {name} caused {ended['attempt']} attempts of a task that it should not affect"
        )
    bench.wait_healthy()
    healthy_s = time.monotonic() - at
    how = counted(ended["attempt"], "attempt") + ", " + counted(ended["strikes"], "strike")
    note = f"the running task: {how}; all pools healthy after {healthy_s:.0f} s"
    return [Row(f"Killed {name}: time until a new one responds", back_s, "s", note=note)]


def _other(bench: Bench, component: str, old: int, back: Callable[[int], bool] | None) -> bool:
    return any(pid != old and (back is None or back(pid)) for pid in bench.up.find(component))


@case("valkey", "echo", quick=True)
def valkey_killed(bench: Bench) -> list[Row]:
    """Kill the store: it restarts on its port with its data; the running attempt continues."""
    return _component_killed(
        bench, "valkey", name="Valkey", back=lambda _: bench.up.groups("echo") is not None
    )


@case("controller", "echo", quick=True)
def controller_killed(bench: Bench) -> list[Row]:
    """Kill Serve's controller: Ray restarts it, and it finds the replicas that still run."""
    return _component_killed(bench, "controller", name="Serve controller")


@case("gateway", "echo")
def gateway_killed(bench: Bench) -> list[Row]:
    """Kill the gateway: the supervisor restarts it on its port."""
    return _component_killed(
        bench, "gateway", name="gateway", back=lambda _: bench.up.try_get("/healthz") is not None
    )


@case("api", "echo")
def api_killed(bench: Bench) -> list[Row]:
    """Kill the API deployment on Ray."""
    wait_until(bench.up.api_responds, LATEST_S, "APIEntrypoint")
    return _component_killed(
        bench, "api", name="API deployment on Ray (`APIEntrypoint`)", back=lambda _: bench.up.api_responds()
    )


@case("proxy", "echo")
def proxy_killed(bench: Bench) -> list[Row]:
    """Kill Serve's HTTP proxy."""
    wait_until(bench.up.api_responds, LATEST_S, "APIEntrypoint")
    return _component_killed(bench, "proxy", name="Serve proxy", back=lambda _: bench.up.api_responds())


def _ray_killed(bench: Bench, component: str, name: str) -> list[Row]:
    """Kill a part of Ray, so that all of Ray ends and restarts. The running attempt may end with a strike."""
    return _component_killed(bench, component, name=name, attempts=(1, 2))


@case("raylet", "echo", "video")
def raylet_killed(bench: Bench) -> list[Row]:
    """Kill the raylet: Ray's worker processes end with it."""
    return _ray_killed(bench, "raylet", "raylet")


@case("gcs", "echo", "video")
def gcs_killed(bench: Bench) -> list[Row]:
    """Kill the GCS, Ray's control store."""
    return _ray_killed(bench, "gcs", "GCS")


@case("head", "echo", "video")
def head_killed(bench: Bench) -> list[Row]:
    """Kill the process that started Ray."""
    return _ray_killed(bench, "head", "Ray's parent process")


@case("up", "echo", "video")
def up_killed(bench: Bench) -> list[Row]:
    """Kill `daybreakd up` itself: its processes end with it, and the next `up` runs every accepted task."""
    video = bench.submit("video", **VIDEO)
    bench.busy("video", video, step=80)
    waiting = [bench.submit("echo", **SMALL) for _ in range(8)]
    at = time.monotonic()
    bench.up.kill_up()
    wait_until(lambda: not bench.up.running(), 60, "the end of its processes")
    gone_s = time.monotonic() - at
    bench.up.start()
    again_s = bench.up.wait_ready()
    for task in waiting:
        bench.succeeded(task)
    ended = bench.succeeded(video)
    note = (
        f"the running video: {ended['attempt']} attempts, same MP4 SHA-256; {len(waiting)} queued tasks succeeded; "
        f"all processes of the killed `up` ended within {gone_s:.1f} s"
    )
    return [
        Row("Killed and restarted `daybreakd up`: time until it is ready", again_s, "s", baseline=bench.up.starts_s[0],
            baseline_what="the first start in this run", note=note),
    ]  # fmt: skip


# ── work that goes wrong ─────────────────────────────────────────────────────────────────────────────────


@case("hang", "pair")
def collective_hangs(bench: Bench) -> list[Row]:
    """One rank enters a collective, the other never does: the task stalls and gets a strike, and a new gang starts."""
    task = bench.submit(
        "pair", message="hang", steps=30, step_s=0.05, all_ranks=True, fail_at=15, fail_kind="hang",
        fail_rank=1, fail_attempts=1,
    )  # fmt: skip
    group = bench.busy("pair", task, step=10)
    at = time.monotonic()
    bench.up.history.note("fault", kind="hang")
    with Watcher(bench.up, "pair", task) as watcher:
        recovery = follow(bench, watcher, "pair", task, at=at, lost_group=group["id"])
    remaining = [pid for pid in group["pids"] if alive(pid)]
    if recovery.task["strikes"] != 1 or remaining:
        raise ViolatedError(f"a hanging collective caused {recovery.how}; ranks still alive: {remaining}")
    return [
        _stall_row("Task whose collective hangs", recovery),
        _ready_row(bench, "pair", "Task whose collective hangs", recovery),
    ]


@case("gil-busy", "stress")
def lock_held_while_working(bench: Bench) -> list[Row]:
    """Run steps that hold the GIL in C code for 2 × lease: the work advances, so no second attempt starts."""
    hold_s = 2 * LEASE_S
    task = bench.submit("stress", steps=3, hold_s=hold_s)
    ended = bench.succeeded(task)
    if (ended["attempt"], ended["strikes"]) != (1, 0):
        raise ViolatedError(f"work that held the GIL caused {ended['attempt']} attempts, expected 1")
    return [
        Row("Task whose steps hold the GIL for 2 × lease: attempts", ended["attempt"], "attempts", target="1",
            held=True, note=f"3 steps, each one C call of {hold_s:g} s; the watchdog renewed the lease"),
    ]  # fmt: skip


@case("gil-stuck", "stress")
def lock_held_forever(bench: Bench) -> list[Row]:
    """Hold the GIL forever: no thread of the leader can run, so its watchdog kills it."""
    task = bench.submit("stress", steps=3, hold_s=0.5, stuck_at=2)
    group = bench.busy("stress", task, step=1)
    at = time.monotonic()
    bench.up.history.note("fault", kind="gil")
    with Watcher(bench.up, "stress", task) as watcher:
        recovery = follow(bench, watcher, "stress", task, at=at, lost_group=group["id"])
    if recovery.task["strikes"] != 1:
        raise ViolatedError(f"a leader stuck with the GIL caused {recovery.how}, expected 1 strike")
    return [
        _stall_row("Task that holds the GIL forever", recovery),
        _ready_row(bench, "stress", "Task that holds the GIL forever", recovery),
    ]


@case("poison", "pair")
def poison(bench: Bench) -> list[Row]:
    """Run a task that kills a process of its group in every attempt, while other tasks succeed."""
    task = bench.submit(
        "pair", message="poison", steps=5, step_s=0.05, all_ranks=True, fail_at=3, fail_kind="exit", fail_rank=1,
        max_strikes=3,
    )  # fmt: skip
    with bench.with_other_tasks():
        ended = bench.ended(task)
    if (ended["state"], ended["attempt"], ended["strikes"]) != ("failed", 3, 3):
        raise ViolatedError(f"the poison task {ended['state']} after {ended['attempt']} attempts")
    next_task = bench.submit("pair", message="after", steps=5, all_ranks=True)
    bench.succeeded(next_task)
    bench.wait_healthy()
    return [
        Row("Poison task (each attempt kills a rank): attempts", ended["attempt"], "attempts",
            target="exactly 3 (`max_strikes`)", held=True,
            note="the task is then a dead letter; the next task of the pool succeeded"),
    ]  # fmt: skip


def _stall_row(what: str, recovery: Recovery) -> Row:
    bound = STALL_S + DETECT_S
    return Row(
        f"{what}: time until its attempt ends", recovery.detect_s, "s", baseline=STALL_S, baseline_what="`stall_s`",
        target=f"≤ `stall_s` + {DETECT_S:g} s", held=recovery.detect_s <= bound, note=recovery.how,
    )  # fmt: skip


def _ready_row(bench: Bench, pool: str, what: str, recovery: Recovery) -> Row:
    cold, rebuild_s = bench.cold_s[pool], recovery.ready_s - recovery.detect_s
    return Row(f"{what}: time from the end of that attempt until the group is ready again", rebuild_s, "s",
               baseline=cold, baseline_what=COLD, target="≤ 2 × cold start",
               held=rebuild_s <= 2 * cold)  # fmt: skip
