"""What metrics, traces and logs cost: ``python -m verification.benchmarks.observability [--quick]``."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import redis

from daybreak_server.local.instance import free_port
from daybreak_server.settings.tracing import TracingSettings
from verification.benchmarks.http import load, parts
from verification.benchmarks.http.parts import Cores, Running
from verification.benchmarks.http.plan import plain
from verification.benchmarks.observability import steps
from verification.benchmarks.observability.modes import MODES, cpu_s
from verification.results import FOLDER, Report, Row

MOST = 1.03
EVERY_TRACE = ", every trace sampled"
ABOUT = (
    "*On*: metrics, the log at level `info` as JSON, and tracing with its default `tracing.sample_ratio` of {ratio:g} "
    "and a collector that accepts everything. *Off*, the baseline: no metrics (also in Redis, whose scripts count "
    "nothing), only errors in the log, no tracing. *Submit*: CPU time of the gateway and of Redis for each "
    "`POST /v1/tasks`, the export of spans included, at 16 requests at once. *Step*: CPU time of a group of one rank, "
    "whose metrics Ray exports, and of Redis, for each step. Each round with everything on forms a pair with the round "
    "with everything off just before or after it. The baseline is the median of the rounds with everything off. The "
    "figure is the baseline plus the median of the differences within pairs, which a busy machine disturbs least. "
    "*Every trace sampled* shows the cost at a ratio of 1."
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.observability", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="a few rounds of each; saved only with --out")
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON")
    given = parser.parse_args(arguments)
    report = Report(
        "observability",
        title="Cost of metrics, traces and logs",
        about=ABOUT.format(ratio=TracingSettings().sample_ratio),
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-observability-")))
        cores = Cores.here()
        available = parts.everywhere()
        stack.callback(os.sched_setaffinity, 0, available)
        stores = {
            mode: stack.enter_context(
                parts.valkey(folder / f"valkey-{mode}", fsync="everysec", cores=cores.clients)
            )
            for mode in MODES
        }
        collector = stack.enter_context(_process(folder, "collector", cores=cores.clients))
        url = f"http://127.0.0.1:{collector.port}"
        gateways = {
            mode: stack.enter_context(
                _process(folder, "gateway", _url(store), str(folder), mode, url, cores=cores.server)
            )
            for mode, store in stores.items()
        }
        os.sched_setaffinity(0, cores.clients)
        rounds, seconds = (4, 0.1) if given.quick else (200, 0.1)
        report.rows += _submits(gateways, stores, rounds=rounds, seconds=seconds)
        for mode, gateway in gateways.items():
            gateway.process.terminate()
            gateway.process.wait(60)
            with redis.Redis(port=stores[mode].port) as client:
                client.flushall()  # the groups must not work on the tasks that were submitted here
        os.sched_setaffinity(0, available)
        _start_ray(stack)

        def group(options: tuple[str, ...], workload: str) -> AbstractContextManager[Running]:
            return _process(folder, "group", *options, url, workload, cores=available)

        for subject in steps.SUBJECTS:
            say(subject.what)
            took = steps.measure(
                folder, stores, group, subject=subject, rounds=1 if given.quick else subject.rounds
            )
            for mode in subject.modes[1:]:
                what = subject.what + EVERY_TRACE * (mode == "all")
                report.add(_row(what, took[mode], took["off"], promised=subject.promised))
    print(report.table())
    if given.out or not given.quick:
        print(f"\n{report.save(given.out or FOLDER)}", file=sys.stderr)
    return 0


def say(what: str) -> None:
    """Show what is being measured."""
    print(what, file=sys.__stderr__, flush=True)


def _url(store: Running) -> str:
    return f"redis://127.0.0.1:{store.port}"


def _process(
    folder: Path, kind: str, *options: str, cores: frozenset[int]
) -> AbstractContextManager[Running]:
    port = free_port()
    module = "verification.benchmarks.observability.serve"
    log = folder / f"{kind}-{port}.log"
    return parts.python(module, kind, str(port), *options, port=port, cores=cores, log=log)


def _start_ray(stack: ExitStack) -> None:
    """Start a Ray that exports the metrics of the groups. Their processes find it by ``RAY_ADDRESS``."""
    import ray

    context = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    stack.callback(ray.shutdown)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    stack.callback(os.environ.pop, "RAY_ADDRESS")


def _submits(
    gateways: dict[str, Running], stores: dict[str, Running], *, rounds: int, seconds: float
) -> list[Row]:
    say(f"Submit: {rounds} rounds of {seconds:g} s for each mode")
    took: dict[str, list[float]] = {mode: [] for mode in gateways}
    for gateway in gateways.values():
        load.run(gateway.port, plain, concurrency=16, seconds=1)
    for number in range(rounds):
        order = list(gateways.items())
        for mode, gateway in order if number % 2 else reversed(order):
            pids = (gateway.process.pid, stores[mode].process.pid)
            used, sent = cpu_s(*pids), 0

            def request(number: int) -> bytes:
                nonlocal sent
                sent += 1
                return plain(number)

            load.run(gateway.port, request, concurrency=16, seconds=seconds)
            took[mode].append((cpu_s(*pids) - used) / sent * 1e6)
    return [
        _row("Submit", took["on"], took["off"], promised=True),
        _row(f"Submit{EVERY_TRACE}", took["all"], took["off"], promised=False),
    ]


def _row(what: str, on: Sequence[float], off: Sequence[float], *, promised: bool) -> Row:
    base = statistics.median(off)
    value = base + statistics.median(with_it - without for with_it, without in zip(on, off, strict=True))
    say(f"{what}: {value:.2f} µs, {base:.2f} µs without; {value / base - 1:+.1%}")
    return Row(
        f"{what}: CPU time",
        round(value, 2),
        "µs",
        baseline=round(base, 2),
        baseline_what="off",
        target=f"≤ {MOST:g} × the baseline" if promised else "",
        held=value <= MOST * base if promised else None,
        spread=(round(min(on), 2), round(max(on), 2)),
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
