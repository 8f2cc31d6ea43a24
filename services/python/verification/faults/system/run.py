"""Runs cases on one system, waits until every task has ended, checks the history and returns the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from verification.faults import final_state
from verification.faults.checker import check
from verification.faults.history import read
from verification.faults.load import Load
from verification.faults.scenario_catalogue import ViolatedError
from verification.faults.system.cases import CASES, LEASE_S, STALL_S, VIDEO, Case
from verification.faults.system.trial import Bench
from verification.faults.system.up import Up
from verification.results import Report, Row

ABOUT = (
    "A whole `daybreakd up` (Valkey, Ray Serve, gateway) runs on one machine while external clients submit tasks, "
    "follow them and download artifacts. Each kill is a SIGKILL, and the test waits until the process is gone. "
    "Recovery times are compared with the cold start of the same pool in the same run. At the end, the checker reads "
    "the history that the clients recorded."
)
PROMISES = (
    ("Accepted tasks lost", ("lost", "unknown")),
    ("Tasks that never ended", ("stuck",)),
    ("Tasks that succeeded or ended twice", ("double-success", "two-ends", "twice")),
)
"""Rows of the table, and the kinds of violations that each row counts."""
POOLS: dict[str, dict[str, Any]] = {
    "video": {"workload": "video", "ranks": 2, "checkpoint_s": 0.5, "options": {"threads": 1}},
    "echo": {"workload": "echo", "groups": 2},
    "pair": {"workload": "echo", "ranks": 2, "lease": {"lease_s": LEASE_S, "stall_s": STALL_S}},
    "stress": {
        "workload": "verification.faults.system.stress_workload:SPEC",
        "lease": {"lease_s": LEASE_S, "stall_s": STALL_S},
    },
}
"""Small pools for the cases."""


def pools_for(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The settings of the pools that these cases need."""
    common = {"lease": {"lease_s": LEASE_S}, "cpus_per_rank": 0.25, "drain_s": 0.0, "progress_s": 0.1}
    wanted = {pool for case in cases for pool in case.pools}
    return {name: {**common, **settings} for name, settings in POOLS.items() if name in wanted}


def run(cases: Sequence[Case], *, seed: int = 0, log: Callable[[str], None] = print) -> Report:
    """Run the cases on one system. :raises ViolatedError: when a promise was broken."""
    pools = pools_for(cases)
    extra = {
        "lease_s": LEASE_S,
        "stall_s": STALL_S,
        "pools": {name: settings.get("ranks", 1) for name, settings in pools.items()},
    }
    report = Report("faults-system", title="The whole system under Ray", about=ABOUT, seed=seed, extra=extra)
    log(f"starting daybreakd up with {', '.join(pools)} …")
    with Up(pools, seed=seed) as up:
        log(f"ready in {up.starts_s[0]:.1f} s")
        report.add(
            Row(
                "`daybreakd up`: time until it is ready",
                up.starts_s[0],
                "s",
                note=f"pools {', '.join(pools)}",
            )
        )
        with Load(up, seed=seed, relay=False, tenants=("default",)) as load:  # type: ignore[arg-type]
            bench = Bench(up=up, load=load, log=log)
            for pool in pools:
                phases = up.call(f"/v1/pools/{pool}")["wake"]["last"]
                bench.cold_s[pool] = up.cold_s[pool]
                log(f"cold start of {pool}: {up.cold_s[pool]:.1f} s; the first group's own report: {phases}")
            if "video" in pools:
                bench.succeeded(bench.submit("video", **VIDEO))  # later videos must have the same SHA-256
            try:
                for case in cases:
                    _run_case(bench, case, report)
                _decide(bench, report)
            except BaseException:
                up.keep = True
                log(f"the history and the logs are in {up.folder}")
                raise
    return report


def _run_case(bench: Bench, case: Case, report: Report) -> None:
    started = time.monotonic()
    bench.log(f"── {case.name}: {(case.run.__doc__ or '').strip()}")
    for row in case.run(bench):
        report.add(row)
        mark = {True: "held", False: "MISSED", None: ""}[row.held]
        bench.log(f"   {row.what}: {row.value:.2f} {row.unit}  {row.target}  {mark}  {row.note}".rstrip())
    bench.log(f"   {time.monotonic() - started:.1f} s")


def _decide(bench: Bench, report: Report) -> None:
    """Wait until every task has ended, then check the clients' history."""
    up, load = bench.up, bench.load
    bench.wait_healthy()
    unended = load.settle_down(120)
    up.history.note("settled", left=unended)
    load.wait_clients(60)
    final_state.read_all(load)  # type: ignore[arg-type]
    verdict = check(read(up.history.path))
    kills = sum(count for name, count in up.history.counts.items() if name.startswith("fault."))
    note = (
        f"{len(load.known)} tasks accepted, {kills} faults; "
        "the checker also checks streams, files, accounting and keys"
    )
    for what, kinds in PROMISES:
        count = verdict.count(*kinds)
        report.add(Row(what, count, "tasks", target="0", held=not count, note=note))
        note = ""
    report.add(Row("Violations of any kind", len(verdict.violations), "", target="0", held=verdict.ok))
    if not verdict.ok:
        raise ViolatedError(f"{verdict.text()}\nhistory: {up.history.path}")


def chosen(names: Sequence[str], *, long: bool) -> list[Case]:
    """The cases with these names. Without names: the quick cases, or all cases if ``long`` is true."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"unknown case: {', '.join(unknown)}. Choose from: {', '.join(CASES)}")
    return [case for case in CASES.values() if (case.name in names if names else long or case.quick)]
