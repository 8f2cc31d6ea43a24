"""Turns the figures into rows. For each router, they show the latency that the router adds, its rate per core, and the
growth of its memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from verification.benchmarks.routing.bed import DIRECT
from verification.benchmarks.routing.contenders import CONTENDERS, DAYBREAK
from verification.benchmarks.routing.measure import STREAMS, TOKENS, Effort, Figures, Memory, Round
from verification.results import Report, Row

ABOUT = (
    "Each router has one process on a core of its own. The client, Redis, and one process that stands for two back "
    "ends share the other core. A back end answers an OpenAI chat completion after {latency:g} ms and says in its "
    "answer how long it had the request. *Added*: the client's time minus that of the back end, compared with the "
    "same difference in a run without any router. *A second and core*: answers or tokens for each second of the "
    "router's CPU time. For answers, there are {most} clients, and the back ends have no latency. For streams, "
    "{streams} clients follow streams of {tokens} tokens, which together offer {offered:,.0f} tokens a second. The "
    "rounds alternate between the routers; a figure is the median of {rounds} rounds of {seconds:g} s. No router "
    "checks keys. {how}."
)
ADDED_MS, AHEAD, FLAT_MIB = 3.0, 3.0, 16.0
RIVAL = "LiteLLM"


def report(effort: Effort, versions: Mapping[str, str], cores: str) -> Report:
    """A report without rows."""
    how = "; ".join(f"{contender.name}: {contender.how}" for contender in CONTENDERS)
    return Report(
        "routing",
        title="The router beside other routers",
        about=ABOUT.format(
            latency=1000 * effort.latency_s,
            most=max(effort.clients),
            streams=STREAMS,
            tokens=TOKENS,
            offered=STREAMS / effort.pause_s,
            rounds=effort.rounds,
            seconds=effort.seconds,
            how=how,
        ),
        extra={"cores used": cores, **versions},
    )


def rows(figures: Figures, effort: Effort) -> list[Row]:
    """All rows."""
    found: list[Row] = []
    for clients, by_name in figures.latency.items():
        found += _latency(clients, by_name, effort)
    if figures.saturated:
        found += _a_core("Requests a second and core", "requests/s", figures.saturated)
        found += _a_core("Streamed tokens a second and core", "tokens/s", figures.streams)
    found += [_memory(name, memory) for name, memory in figures.memory.items()]
    return found


def merged(earlier: Sequence[Row], measured: Sequence[Row]) -> list[Row]:
    """The earlier rows, each replaced by the new row of the same name if there is one, and then the other new rows."""
    new = {row.what: row for row in measured}
    return [*(new.pop(row.what, row) for row in earlier), *new.values()]


def _latency(clients: int, by_name: Mapping[str, list[Round]], effort: Effort) -> list[Row]:
    at = f"{clients} clients" if clients > 1 else "1 client"
    direct = by_name[DIRECT]
    found = []
    for quantile in ("p50_ms", "p99_ms"):
        floor = _middle(direct, quantile)
        label = quantile.removesuffix("_ms")
        found.append(
            Row(
                f"{at}: {label} without a router",
                round(floor, 3),
                "ms",
                spread=_spread(direct, quantile),
                detail=True,
            )
        )
        rival = _middle(by_name[RIVAL], quantile) - floor if RIVAL in by_name else None
        for name, rounds in by_name.items():
            if name == DIRECT:
                continue
            added = max(0.0, _middle(rounds, quantile) - floor)
            low, high = _spread(rounds, quantile)
            ours = name == DAYBREAK.name
            limit = ours and quantile == "p99_ms"
            found.append(
                Row(
                    f"{at}: added {label}, {name}",
                    round(added, 3),
                    "ms",
                    baseline=round(rival, 3) if ours and rival is not None else None,
                    baseline_what=RIVAL if ours and rival is not None else "",
                    target=f"≤ {ADDED_MS:g} ms" if limit else "",
                    held=added <= ADDED_MS if limit else None,
                    spread=(round(max(0.0, low - floor), 3), round(max(0.0, high - floor), 3)),
                    note=_load(rounds),
                )
            )
    return found


def _load(rounds: Sequence[Round]) -> str:
    return f"{_middle(rounds, 'rate'):,.0f} requests/s with {_middle(rounds, 'router_busy'):.2f} of a core"


def _a_core(what: str, unit: str, by_name: Mapping[str, list[Round]]) -> list[Row]:
    rival = _middle(by_name[RIVAL], "a_core") if RIVAL in by_name else None
    found = []
    for name, rounds in by_name.items():
        if name == DIRECT:
            continue
        value = _middle(rounds, "a_core")
        ours = name == DAYBREAK.name and rival is not None
        found.append(
            Row(
                f"{what}, {name}",
                round(value),
                unit,
                baseline=round(rival) if ours and rival is not None else None,
                baseline_what=RIVAL if ours else "",
                target=f"≥ {AHEAD:g} × {RIVAL}" if ours else "",
                held=value >= AHEAD * rival if ours and rival is not None else None,
                spread=(
                    round(min(each.a_core for each in rounds)),
                    round(max(each.a_core for each in rounds)),
                ),
                note=f"{_middle(rounds, 'cpu_us'):.0f} µs of CPU each; {_middle(rounds, 'rate'):,.0f}/s with "
                f"{_middle(rounds, 'router_busy'):.2f} of a core",
            )
        )
    return found


def _memory(name: str, memory: Memory) -> Row:
    grown = (memory.late - memory.early) / 2**20
    ours = name == DAYBREAK.name
    return Row(
        f"Growth of memory over {memory.requests:,} requests, {name}",
        round(grown, 1),
        "MiB",
        target=f"≤ {FLAT_MIB:g} MiB" if ours else "",
        held=grown <= FLAT_MIB if ours else None,
        note=f"from {memory.early / 2**20:.0f} MiB after a tenth of them to {memory.late / 2**20:.0f} MiB",
    )


def _middle(rounds: Sequence[Round], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in rounds))


def _spread(rounds: Sequence[Round], name: str) -> tuple[float, float]:
    values = [float(getattr(each, name)) for each in rounds]
    return round(min(values), 3), round(max(values), 3)
