"""Measures SSE clients on a gateway, and the relay of events.

Usage: ``python -m verification.benchmarks.streams [--quick] [--part PART …]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from verification.benchmarks.http.parts import Cores
from verification.benchmarks.streams import relaying, sse_clients
from verification.benchmarks.streams.sse_clients import Outcome, Shape
from verification.results import FOLDER, Report, Row

KIB_EACH, LATE_MS, A_CORE, RELAYED = 40.0, 1000.0, 5000, 100_000
CLIENTS = (1000, 5000, 10_000)
PER_TASK = 10
PARTS = ("many-tasks", "one-task", "relay")
ABOUT = (
    "*Clients*: SSE clients follow tasks on one gateway, and each task has one event a second. In some runs "
    "each task has ten clients. In the others all clients follow the same task, so each event goes to all of them at "
    "once. Events are written to Redis as `report` writes them. The lag runs from the time in the event's id to the "
    "arrival of its bytes at the client, which is another process. Memory is the growth of the gateway's RSS. Clients "
    "connect over loopback from 16 source addresses. *Relay*: `daybreak.event_relay` reads the events with a consumer "
    "group. Its baseline is redis-py, which reads and acknowledges the same entries without parsing them."
)


def client_rows(outcome: Outcome, *, detail: bool) -> list[Row]:
    """The rows of one run: memory, lag, clients per core, and losses. Rows with ``detail`` are saved but not shown."""
    shape = outcome.shape
    kib_each, a_core = outcome.bytes_each / 1024, shape.clients / outcome.core
    wrong = outcome.lost + outcome.repeated
    return [
        Row(f"{shape}: memory of the gateway", round(kib_each, 1), "KiB per client", target=f"≤ {KIB_EACH:g} KiB",
            held=kib_each <= KIB_EACH, detail=detail),
        Row(f"{shape}: lag, p99", round(outcome.p99_ms, 1), "ms", target="≤ 1 s", held=outcome.p99_ms <= LATE_MS,
            note=f"p50 {outcome.p50_ms:.0f} ms, worst {outcome.worst_ms:.0f} ms", detail=detail),
        Row(f"{shape}: clients per core", round(a_core), "clients", target=f"≥ {A_CORE:,}", held=a_core >= A_CORE,
            note=f"the gateway used {outcome.core:.2f} of a core, the clients {outcome.client_core:.2f}",
            detail=detail),
        Row(f"{shape}: events lost or repeated", wrong, "events", target="0", held=not wrong,
            note=f"{outcome.delivered:,} delivered", detail=detail),
    ]  # fmt: skip


def follow(sizes: tuple[int, ...], tasks: Callable[[int], int], seconds: float) -> list[Row]:
    """Run once for each number of clients. The table shows only the run with the most clients. :returns: all rows."""
    rows = []
    for clients in sizes:
        outcome = sse_clients.follow(Shape(clients, tasks(clients), seconds), Cores.here())
        print(outcome, file=sys.stderr, flush=True)
        rows += client_rows(outcome, detail=clients < max(sizes))
    return rows


def relay_rows(events: int, count: int) -> list[Row]:
    """Rows for one consumer (small batches, large batches, large batches that it decodes), and for two consumers."""
    rows = []
    with relaying.store(events, Cores.here()) as store:
        url = f"redis://127.0.0.1:{store.port}"
        for batch, decoded in ((100, False), (1000, False), (1000, True)):
            ours, baseline = relaying.rounds(url, events, batch=batch, count=count, decoded=decoded)
            value = statistics.median(ours)
            aimed = batch == 1000 and not decoded
            what = "events decoded to typed objects" if decoded else "events passed on as JSON"
            rows.append(
                Row(f"Relay: one consumer, batches of {batch:,}, {what}", round(value), "events/s",
                    baseline=round(statistics.median(baseline)),
                    baseline_what="redis-py, which only reads and acknowledges",
                    target=f"≥ {RELAYED:,}" if aimed else "", spread=(round(min(ours)), round(max(ours))),
                    held=value >= RELAYED if aimed else None)
            )  # fmt: skip
        several = relaying.several(url, "several", events, batch=1000, consumers=2)
        rows.append(
            Row(
                "Relay: two consumers that share the cores beside Redis's core",
                round(several),
                "events/s",
            )
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.streams", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="use few clients and events; save only with --out"
    )
    parser.add_argument(
        "--part",
        choices=PARTS,
        action="append",
        help="measure only this part (may be repeated); save only with --out",
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for the JSON file with the results")
    args = parser.parse_args(arguments)
    sizes, seconds = ((50,), 2.0) if args.quick else (CLIENTS, 10.0)
    make: dict[str, Callable[[], list[Row]]] = {
        "many-tasks": lambda: follow(sizes, lambda clients: clients // PER_TASK, seconds),
        "one-task": lambda: follow(sizes, lambda clients: 1, seconds),
        "relay": lambda: relay_rows(*((2_000, 1) if args.quick else (100_000, 3))),
    }
    report = Report("streams", title="Following tasks", about=ABOUT)
    cores = "clients: gateway on 1 core, client and Redis on {0}; relay: Redis on 1 core, consumers on {0}"
    rest = len(Cores.here().clients)
    report.extra = {
        "cores used": cores.format("the other" if rest == 1 else f"{rest} others"),
        "fsync": "everysec",
    }
    for part in args.part or PARTS:
        report.rows += make[part]()
    print(report.table())
    if args.out or not (args.quick or args.part):
        print(f"\n{report.save(args.out or FOLDER)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
