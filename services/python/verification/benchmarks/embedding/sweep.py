"""The part ``picture`` of the benchmark: requests per second by batch size and timeout. The program changes these two
settings with PATCH requests while Daybreak runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verification.benchmarks.embedding import client, picture
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import Variant
from verification.benchmarks.embedding.measure import show
from verification.benchmarks.embedding.texts import texts
from verification.results import Report, Row

CLIENTS = 32
PICTURE = "embedding-batches.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The batch sizes and timeouts to try, and how long to measure each combination of the two."""

    sizes: tuple[int, ...]
    timeouts_ms: tuple[float, ...]
    seconds: float


FULL = Grid(sizes=(1, 2, 4, 8, 16, 32, 64), timeouts_ms=(0, 5, 10, 20, 50), seconds=1.2)
QUICK = Grid(sizes=(1, 8, 32), timeouts_ms=(0, 20), seconds=0.5)
Cells = dict[tuple[int, float], tuple[float, float]]
"""Requests per second and mean number of texts in a batch, by batch size and timeout."""


def measured(server: Server, grid: Grid) -> Cells:
    """Measure the running Daybreak with each combination of batch size and timeout."""
    cells: Cells = {}
    requests = server.requests(texts("short"))
    client.load(server.port, requests, clients=CLIENTS, window=client.Window(seconds=1.0))
    for size in grid.sizes:
        for timeout_ms in grid.timeouts_ms:
            change = {"mode": "timed", "max_batch_size": size, "batch_timeout_ms": timeout_ms}
            server.use(Variant(what=f"{size} texts, {timeout_ms} ms", change=change))
            before = server.batches()
            window = client.Window(seconds=grid.seconds, warm_s=0.2)
            samples = client.load(server.port, requests, clients=CLIENTS, window=window)
            batches, items = (now - then for now, then in zip(server.batches(), before, strict=True))
            cells[size, timeout_ms] = samples.rate, items / max(1, batches)
            show(f"{size} texts, {timeout_ms:g} ms: {samples.rate:.0f} requests/s")
    return cells


def report(cells: Cells, folder: Path | None) -> Report:
    """Make the report. Draw the picture into ``folder``, if given."""
    made = Report(
        "embedding-batches",
        title="Throughput by batch size and timeout",
        about=f"Each of {CLIENTS} clients sends one short text at a time; mode `timed`.",
    )
    for (size, timeout_ms), (rate, batch) in cells.items():
        made.add(
            Row(
                f"{size} texts, {timeout_ms:g} ms",
                round(rate, 1),
                "requests/s",
                note=f"mean batch {batch:.1f}",
            )
        )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        picture.draw(
            cells,
            title="Requests per second by batch size and timeout",
            subtitle=f"MiniLM on one thread, mode timed, {CLIENTS} clients with one short text each; "
            "∅: mean batch",
            path=folder / PICTURE,
        )
    return made
