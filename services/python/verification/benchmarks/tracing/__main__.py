"""What tracing costs: ``python -m verification.benchmarks.tracing [--quick]``."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from daybreak_server.local.instance import free_port
from daybreak_server.settings.tracing import TracingSettings
from verification.benchmarks.http import load, parts
from verification.benchmarks.http.parts import Cores, Running
from verification.benchmarks.http.plan import plain
from verification.benchmarks.tracing import steps
from verification.results import FOLDER, Report, Row

MOST = 1.03
ABOUT = (
    "Tracing is on with the default `tracing.sample_ratio` of {ratio:g} and a collector that accepts everything; the "
    "baseline is the same with tracing off. *Submit*: CPU time of the gateway's process for each `POST /v1/tasks`, the "
    "export included, at 16 requests at once. *Step*: CPU time of a group of one rank for each step of an echo task "
    "without work. Each round with tracing forms a pair with one without, just before or after it. The baseline is the "
    "median of the rounds; the figure is the baseline plus the median difference of the pairs, which is what a "
    "busy machine disturbs least. *Every trace sampled* shows the cost at a ratio of 1."
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.tracing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a round of each; saved only with --out")
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON")
    given = parser.parse_args(arguments)
    ratio = TracingSettings().sample_ratio
    rounds, seconds, count = (4, 0.1, 200) if given.quick else (200, 0.1, 400)
    report = Report("tracing", title="Cost of tracing", about=ABOUT.format(ratio=ratio))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-tracing-")))
        cores = Cores.here()
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        stores = [
            stack.enter_context(
                parts.valkey(folder / f"valkey-{name}", fsync="everysec", cores=cores.clients)
            )
            for name in ("off", "on")
        ]
        off_url, on_url = (f"redis://127.0.0.1:{store.port}" for store in stores)
        redis_url = off_url
        collector = _serve(stack, folder, "collector", cores=cores.clients)
        url = f"http://127.0.0.1:{collector.port}"
        gateways = {
            name: _serve(stack, folder, "gateway", redis_url, str(folder), name, *options, cores=cores.server)
            for name, options in {"off": ("", "0"), "on": (url, str(ratio)), "all": (url, "1")}.items()
        }  # fmt: skip
        os.sched_setaffinity(0, cores.clients)
        report.rows += _submits(gateways, rounds=rounds, seconds=seconds)
        os.sched_setaffinity(0, parts.everywhere())
        for what, part in (("Step", ratio), ("Step, every trace sampled", 1.0)):
            tasks = rounds // 16 or 1 if part == ratio else rounds // 4
            off, on = steps.measure(
                folder / f"{part:g}", (off_url, on_url), url, ratio=part, rounds=tasks, steps=count
            )
            report.add(_row(what, on.step_us, off.step_us, promised=part == ratio))
    print(report.table())
    if given.out or not given.quick:
        print(f"\n{report.save(given.out or FOLDER)}", file=sys.stderr)
    return 0


def _serve(stack: ExitStack, folder: Path, kind: str, *options: str, cores: frozenset[int]) -> Running:
    port = free_port()
    log = folder / f"{kind}-{port}.log"
    return stack.enter_context(
        parts.python(
            "verification.benchmarks.tracing.serve",
            kind,
            str(port),
            *options,
            port=port,
            cores=cores,
            log=log,
        )
    )


def _submits(gateways: dict[str, Running], *, rounds: int, seconds: float) -> list[Row]:
    took: dict[str, list[float]] = {name: [] for name in gateways}
    for gateway in gateways.values():
        load.run(gateway.port, plain, concurrency=16, seconds=seconds)
    for number in range(rounds):
        order = list(gateways.items())
        for name, gateway in order if number % 2 else reversed(order):
            used, sent = _cpu_s(gateway), 0

            def request(number: int) -> bytes:
                nonlocal sent
                sent += 1
                return plain(number)

            load.run(gateway.port, request, concurrency=16, seconds=seconds)
            took[name].append((_cpu_s(gateway) - used) / sent * 1e6)
    return [
        _row("Submit", took["on"], took["off"], promised=True),
        _row("Submit, every trace sampled", took["all"], took["off"], promised=False),
    ]


def _cpu_s(running: Running) -> float:
    """CPU seconds of all threads, to the nanosecond; ``cpu_times`` counts in steps of 10 ms."""
    threads = Path(f"/proc/{running.process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _row(what: str, on: Sequence[float], off: Sequence[float], *, promised: bool) -> Row:
    base = statistics.median(off)
    value = base + statistics.median(with_it - without for with_it, without in zip(on, off, strict=True))
    return Row(
        f"{what}: CPU time",
        round(value, 2),
        "µs",
        baseline=round(base, 2),
        baseline_what="tracing off",
        target=f"≤ {MOST:g} × the baseline" if promised else "",
        held=value <= MOST * base if promised else None,
        spread=(round(min(on), 2), round(max(on), 2)),
    )


if __name__ == "__main__":
    sys.exit(main())
