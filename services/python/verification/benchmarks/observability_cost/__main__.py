"""Measures what metrics, traces and logs cost: ``python -m verification.benchmarks.observability_cost [--quick]``."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tracing import TracingSettings
from verification.benchmarks.http import parts
from verification.benchmarks.http.parts import Cores, Running
from verification.benchmarks.observability_cost import steps, submits
from verification.benchmarks.observability_cost.modes import MODES
from verification.results import FOLDER, Report, Row

MAX_FACTOR = 1.03
SEED = 1
EVERY_TRACE = ", every trace sampled"
ABOUT = (
    "- *On*: metrics, the log at level `info` as JSON, and tracing with its default `tracing.max_per_s` of {most:g} "
    "and a collector that accepts everything.\n"
    "- *Off*, the baseline: no metrics (also in Redis, whose scripts count nothing), only errors in the log, no "
    "tracing.\n"
    "- *Every trace sampled* shows the cost without the limit `tracing.max_per_s`.\n\n"
    "*Submit*: CPU time of the gateway and of Redis for each `POST /v1/tasks`, the export of spans included, at 16 "
    "requests at once.\n\n"
    "- All processes are started {starts} times. Each start has another hash seed (`PYTHONHASHSEED`), which all its "
    "gateways share. There is one gateway for each mode, and a second gateway without observability. The gateways take "
    "turns of {turn:g} s, in random order, for {rounds} rounds.\n"
    "- The baseline of a round is the mean of the two gateways without observability, and the *control* is the "
    "difference between these two. The difference of a start is the median of the differences in its rounds.\n"
    "- The figure is the baseline plus the median of the differences of all starts. *Min to max* is the range over "
    "the starts. With eight starts, it is a confidence interval of 99 % for the median.\n\n*Step*: CPU time of a "
    "group of one rank, whose metrics Ray exports, and of Redis, for each step. The figure is the baseline plus the "
    "median of the differences in the rounds. *Min to max* is the range over the rounds."
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.observability_cost", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="run only a few rounds; save only with --out")
    parser.add_argument("--out", type=Path, default=None, help="folder for the JSON file")
    parser.add_argument(
        "--parts",
        action="store_true",
        help="also measure submits with only one part of observability on (12 minutes instead of 5)",
    )
    given = parser.parse_args(arguments)
    report = Report(
        "observability",
        title="Cost of metrics, traces and logs",
        about=ABOUT.format(
            most=TracingSettings().max_per_s,
            starts=submits.STARTS,
            rounds=submits.ROUNDS,
            turn=submits.TURN_S,
        ),
        seed=SEED,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-observability-")))
        cores = Cores.here()
        available = parts.everywhere()
        stack.callback(os.sched_setaffinity, 0, available)
        collector = stack.enter_context(_process(folder, "collector", cores=cores.clients))
        url = f"http://127.0.0.1:{collector.port}"
        os.sched_setaffinity(0, cores.clients)
        report.rows += _submits(folder, cores, url, quick=given.quick, each_part=given.parts)
        os.sched_setaffinity(0, available)
        stores = {mode: stack.enter_context(_store(folder, mode, cores)) for mode in MODES}
        _start_ray(stack)

        def group(options: tuple[str, ...], workload: str) -> AbstractContextManager[Running]:
            return _process(folder, "group", *options, url, workload, cores=available)

        for subject in steps.SUBJECTS:
            say(subject.what)
            rounds = 1 if given.quick else subject.rounds
            took = steps.measure(folder, stores, group, subject=subject, rounds=rounds, seed=SEED)
            for mode in subject.modes[1:]:
                what = subject.what + EVERY_TRACE * (mode == "all")
                report.add(_step_row(what, took[mode], took["off"], promised=subject.promised))
    print(report.table())
    if given.out or not given.quick:
        print(f"\n{report.save(given.out or FOLDER)}", file=sys.stderr)
    return 0


def say(what: str) -> None:
    """Show what is being measured."""
    print(what, file=sys.__stderr__, flush=True)


def _process(
    folder: Path, kind: str, *options: str, cores: frozenset[int], hash_seed: int | None = None
) -> AbstractContextManager[Running]:
    port = free_port()
    module = "verification.benchmarks.observability_cost.serve"
    log = folder / f"{kind}-{port}.log"
    return parts.python(
        module, kind, str(port), *options, port=port, cores=cores, log=log, hash_seed=hash_seed
    )


def _start_ray(stack: ExitStack) -> None:
    """Start a Ray that exports the metrics of the groups. The processes of the groups find it by ``RAY_ADDRESS``."""
    import ray

    context = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    stack.callback(ray.shutdown)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    stack.callback(os.environ.pop, "RAY_ADDRESS")


def _store(folder: Path, name: str, cores: Cores) -> AbstractContextManager[Running]:
    return parts.valkey(folder / f"valkey-{name}", fsync="everysec", cores=cores.clients)


def _submits(folder: Path, cores: Cores, url: str, *, quick: bool, each_part: bool) -> list[Row]:
    @contextlib.contextmanager
    def gateway(name: str, mode: str, hash_seed: int) -> Iterator[tuple[Running, Running]]:
        with _store(folder, name, cores) as store:
            options = (f"redis://127.0.0.1:{store.port}", str(folder), mode, url)
            with _process(folder, "gateway", *options, cores=cores.server, hash_seed=hash_seed) as running:
                yield running, store

    starts, rounds = (2, 4) if quick else (submits.STARTS, submits.ROUNDS)
    say(f"Submit: {starts} starts with {rounds} rounds each")
    gateways = submits.GATEWAYS | (submits.PARTS if each_part else {})
    costs = submits.measure(gateway, gateways=gateways, starts=starts, rounds=rounds, seed=SEED)
    return [
        _submit_row("Submit", costs["on"], promised=True),
        _submit_row(f"Submit{EVERY_TRACE}", costs["all"]),
        _submit_row("Submit, the control", costs["control"]),
        *(_submit_row(f"Submit, only {part}", costs[part]) for part in submits.PARTS if part in costs),
    ]


def _submit_row(what: str, cost: submits.Cost, *, promised: bool = False) -> Row:
    extra = statistics.median(cost.extra)
    return _row(
        what, extra, (min(cost.extra), max(cost.extra)), statistics.median(cost.base), promised=promised
    )


def _step_row(what: str, on: Sequence[float], off: Sequence[float], *, promised: bool) -> Row:
    base = statistics.median(off)
    extra = statistics.median(with_it - without for with_it, without in zip(on, off, strict=True))
    return _row(what, extra, (min(on) - base, max(on) - base), base, promised=promised)


def _row(what: str, extra: float, spread: tuple[float, float], base: float, *, promised: bool) -> Row:
    say(f"{what}: {base:.2f} µs and {extra:+.2f} ({spread[0]:+.2f} to {spread[1]:+.2f}), {extra / base:+.1%}")
    return Row(
        f"{what}: CPU time",
        round(base + extra, 2),
        "µs",
        baseline=round(base, 2),
        baseline_what="off",
        target=f"≤ {MAX_FACTOR:g} × the baseline" if promised else "",
        held=base + extra <= MAX_FACTOR * base if promised else None,
        spread=(round(base + spread[0], 2), round(base + spread[1], 2)),
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
