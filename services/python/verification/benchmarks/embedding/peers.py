"""The benchmark's part ``peers``: it installs, tunes, starts, compares and measures all servers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from verification.benchmarks.competitors.environments import install, versions_of
from verification.benchmarks.embedding import bed, measure, table
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import CONTENDERS, DAYBREAK, Contender
from verification.benchmarks.embedding.measure import Effort, Figures, show
from verification.results import Report

SETTLE_S = 8.0
"""A pause, because processes that have just started still use the CPU."""


def installed(names: Sequence[str] | None = None) -> list[Contender]:
    """Install the peers with these names, or all peers. Returns Daybreak and the peers that could be installed.

    The peers get the build of torch that Daybreak has, because the newest build may bring gigabytes of GPU libraries.
    """
    found = []
    for contender in CONTENDERS:
        if names and contender is not DAYBREAK and contender.name not in names:
            continue
        try:
            if contender is not DAYBREAK:
                torch = [f"torch=={version('torch')}"]
                install(contender.name, contender.programs.parent, contender.requirements, torch)
        except (subprocess.CalledProcessError, OSError) as exc:
            show(f"{contender.name} cannot be installed and is left out: {exc}")
        else:
            found.append(contender)
    return found


def run(
    ours: Server, contenders: Sequence[Contender], effort: Effort, *, folder: Path, model: str, seed: int
) -> Report:
    """Measure all servers. ``ours``: the running Daybreak. :raises RuntimeError: if the servers' vectors differ."""
    figures, load = Figures(), f"{os.getloadavg()[0]:.1f}"
    with ExitStack() as stack:
        measure.tune(ours, contenders, effort, folder, model, figures)
        servers = measure.start(stack, ours, contenders, folder, model, figures)
        measure.compare(servers, figures)
        time.sleep(SETTLE_S / (1 if effort.tuned_s else 4))
        before = {server.name: server.cpu_s() for server in servers}
        time.sleep(2)
        for server in servers:
            figures.idle[server.name] = bed.added(before[server.name], server.cpu_s()) / 2
        show(
            "CPU without requests, as shares of a core: "
            + ", ".join(f"{n} {s:.2f}" for n, s in figures.idle.items())
        )
        measure.rounds(servers, effort, figures, seed=seed)
        measure.outliers(servers, effort, figures, seed=seed)
    report = table.report(figures, effort, _described(contenders, load))
    report.rows = table.rows(figures, effort)
    return report


def _described(contenders: Sequence[Contender], load: str) -> dict[str, str]:
    """What the line below the table says: name → value."""
    found = {"torch": version("torch"), "threads": "1", "load before": load}
    for contender in contenders:
        if contender is not DAYBREAK:
            package = contender.package
            found[contender.name] = versions_of(contender.programs, [package])[package]
    return found
