"""``python -m verification.benchmarks.streams [--quick] [--part crowd|one|relay]``: SSE clients on a gateway, and the relay."""

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
PARTS = ("crowd", "one", "relay")
ABOUT = (
    "SSE clients on one gateway, one event a second on each task: ten clients on each task, then all on one task, "
    "where each event is a burst to all of them. Events are written to Redis as `report` does; the lag is from the "
    "event's id to its bytes at the client, another process; memory is what the gateway's RSS grew by; loopback, from "
    "16 source addresses. Then `daybreak.relay` as the consumer of a group, beside redis-py that reads and "
    "acknowledges the same entries without looking at them."
)


def crowd_rows(outcome: Outcome) -> list[Row]:
    """Memory, lag, share of a core, losses."""
    shape = outcome.shape
    each, a_core = outcome.bytes_each / 1024, shape.clients / outcome.core
    wrong = outcome.lost + outcome.repeated
    return [
        Row(f"{shape}: memory of the gateway", round(each, 1), "KiB a client", target=f"≤ {KIB_EACH:g} KiB",
            held=each <= KIB_EACH),
        Row("… lag, p99", round(outcome.p99_ms, 1), "ms", target="≤ 1 s", held=outcome.p99_ms <= LATE_MS,
            note=f"p50 {outcome.p50_ms:.0f} ms, worst {outcome.worst_ms:.0f} ms"),
        Row("… clients a core", round(a_core), "clients", target=f"≥ {A_CORE:,}", held=a_core >= A_CORE,
            note=f"the gateway used {outcome.core:.2f} of a core, the readers {outcome.client_core:.2f}"),
        Row("… events lost or repeated", wrong, "events", target="0", held=not wrong,
            note=f"{outcome.delivered:,} delivered"),
    ]  # fmt: skip


def follow(sizes: tuple[int, ...], tasks: Callable[[int], int], seconds: float) -> list[Row]:
    """A run for each size."""
    rows = []
    for clients in sizes:
        outcome = sse_clients.follow(Shape(clients, tasks(clients), seconds), Cores.here())
        print(outcome, file=sys.stderr, flush=True)
        rows += crowd_rows(outcome)
    return rows


def relay_rows(events: int, count: int) -> list[Row]:
    """One consumer with small and large batches, passing on and decoding; then two."""
    rows = []
    with relaying.store(events, Cores.here()) as store:
        url = f"redis://127.0.0.1:{store.port}"
        for batch, decoded in ((100, False), (1000, False), (1000, True)):
            ours, floor = relaying.rounds(url, events, batch=batch, count=count, decoded=decoded)
            value = statistics.median(ours)
            aimed = batch == 1000 and not decoded
            what = "each decoded to a typed event" if decoded else "each made JSON to be sent on"
            rows.append(
                Row(f"relay: one consumer, batches of {batch:,}, {what}", round(value), "events/s",
                    floor=round(statistics.median(floor)), floor_what="redis-py, read and acknowledged only",
                    target=f"≥ {RELAYED:,}" if aimed else "", spread=(round(min(ours)), round(max(ours))),
                    held=value >= RELAYED if aimed else None)
            )  # fmt: skip
        several = relaying.submit_batcher(url, "several", events, batch=1000, consumers=2)
        rows.append(Row("relay: two consumers on the client's core and Redis's", round(several), "events/s"))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, save; 0 also where a target was missed: the table says so."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.streams", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few clients, few events, saved unknown_websocket"
    )
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="only this, saved unknown_websocket (may be repeated)"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON")
    given = parser.parse_args(arguments)
    sizes, seconds = ((50,), 2.0) if given.quick else (CLIENTS, 10.0)
    make: dict[str, Callable[[], list[Row]]] = {
        "crowd": lambda: follow(sizes, lambda clients: clients // PER_TASK, seconds),
        "one": lambda: follow(sizes, lambda clients: 1, seconds),
        "relay": lambda: relay_rows(*((2_000, 1) if given.quick else (100_000, 3))),
    }
    report = Report("streams", title="Subscription tasks", about=ABOUT)
    report.extra = {"cores used": str(Cores.here()), "fsync": "everysec"}
    for part in given.part or PARTS:
        report.rows += make[part]()
    print(report.table())
    if given.out or not (given.quick or given.part):
        print(f"\n{report.save(given.out or FOLDER)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
