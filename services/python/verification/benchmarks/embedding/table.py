"""Turns the figures into rows of a report.

The rows compare the requests per second of all servers, at equal numbers of clients and at equal p95.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

from verification.benchmarks.embedding.contenders import CONTENDERS, US
from verification.benchmarks.embedding.measure import OUTLIER_CLIENTS, SAME, TUNED_WITH, Effort, Figures, Turn
from verification.benchmarks.embedding.texts import KINDS, OUTLIER_TOKENS
from verification.results import Report, Row
from verification.results.table import number

ABOUT = (
    "All servers have the same weights (MiniLM, 22 million parameters, float32) and one thread of torch, and the same "
    "client sends one text per request, over persistent connections. All servers run, but only one at a time has "
    "clients; the runs have a random order, and all processes share the cores of the machine.\n\n"
    "- Texts: {kinds}. Answers have vectors as base64, except in the row *answers with numbers*.\n"
    "- A figure is the median of {rounds} of {seconds:g} s.\n"
    "- *At the same p95*: the curve through the measured points of a peer ({clients} clients) is read at the p95 that "
    "Daybreak has with {tuned} clients.\n"
    "- The note has the requests per second of the servers, and in most rows the p95 and the mean size of a batch in "
    "brackets. All vectors equal Daybreak's to within {same:g}.\n"
    "- Settings (a number of texts is the limit of a batch, and a time is how long a batch waits for more texts): "
    "{how}."
)
AHEAD = "ahead of each"
STALL = 2.0
"""The p95 of short texts may grow at most by this factor while another client sends long texts (outliers)."""


def report(figures: Figures, effort: Effort, versions: Mapping[str, str]) -> Report:
    """A report without rows."""
    how = "; ".join(
        f"{contender.name}: {contender.how}, {figures.chosen[contender.name].what}"
        for contender in CONTENDERS
        if contender.name in figures.chosen
    )
    return Report(
        "embedding-peers",
        title="Embedding beside other servers",
        about=ABOUT.format(
            kinds="; ".join(f"*{kind}*: {what}" for kind, what in KINDS.items()).capitalize(),
            rounds="one run" if effort.rounds == 1 else f"{effort.rounds} runs",
            seconds=effort.seconds,
            clients=", ".join(map(str, effort.clients)),
            tuned=TUNED_WITH,
            same=SAME,
            how=how,
        ),
        extra=dict(versions),
    )


def rows(figures: Figures, effort: Effort) -> list[Row]:
    """All rows."""
    found = [_equal_p95(kind, figures, effort) for kind in effort.kinds]
    for kind in effort.kinds:
        found += [_same_clients(kind, clients, figures) for clients in effort.clients]
    found.append(_rates("Short texts, answers with numbers: requests", figures.numbers))
    found += _outliers(figures)
    return [*found, *_details(figures)]


def rate_at(points: Sequence[tuple[float, float]], p95_ms: float) -> float:
    """The rate at a p95, interpolated between points of p95 and rate. 0 if every point has a higher p95.

    A point is used only if no other point has a higher rate at a lower p95. After the last point, the line is
    flat.
    """
    best: list[tuple[float, float]] = []
    for at, rate in sorted(points):
        if not best or rate > best[-1][1]:
            best.append((at, rate))
    if not best or p95_ms < best[0][0]:
        return 0.0
    for (low, low_rate), (high, high_rate) in pairwise(best):
        if p95_ms < high:
            return low_rate + (high_rate - low_rate) * (p95_ms - low) / (high - low)
    return best[-1][1]


def _equal_p95(kind: str, figures: Figures, effort: Effort) -> Row:
    limit = _middle(figures.turns[kind, TUNED_WITH, US], "p95_ms")
    ours = _middle(figures.turns[kind, TUNED_WITH, US], "rate")
    others = {}
    for name in figures.servers():
        points = [figures.turns[kind, clients, name] for clients in effort.clients]
        if name != US:
            others[name] = rate_at(
                [(_middle(each, "p95_ms"), _middle(each, "rate")) for each in points], limit
            )
    return _row(
        f"{kind.capitalize()} texts, at a p95 of {limit:.0f} ms: requests",
        ours,
        others,
        note="; ".join(f"{name} {number(rate)}" for name, rate in others.items()),
    )


def _same_clients(kind: str, clients: int, figures: Figures) -> Row:
    by_name = {name: figures.turns[kind, clients, name] for name in figures.servers()}
    at = f"{clients} clients" if clients > 1 else "1 client"
    return _rates(f"{kind.capitalize()} texts, {at}: requests", by_name)


def _rates(what: str, by_name: Mapping[str, list[Turn]]) -> Row:
    rates = {name: _middle(turns, "rate") for name, turns in by_name.items()}
    note = "; ".join(f"{name} {_shown(turns)}" for name, turns in by_name.items())
    values = [turn.rate for turn in by_name[US]]
    return _row(what, rates.pop(US), rates, note=note, spread=(min(values), max(values)))


def _shown(turns: Sequence[Turn]) -> str:
    rate, batch = number(_middle(turns, "rate")), number(_middle(turns, "mean_batch"))
    return f"{rate} ({_middle(turns, 'p95_ms'):.0f} ms, batch {batch})"


def _row(
    what: str,
    ours: float,
    others: Mapping[str, float],
    *,
    note: str,
    spread: tuple[float, float] | None = None,
) -> Row:
    best = max(others, key=lambda name: others[name]) if others else None
    return Row(
        what,
        round(ours, 1),
        "requests/s",
        baseline=round(others[best], 1) if best and others[best] else None,
        baseline_what="the best peer" if best else "",
        target=AHEAD if best else "",
        held=ours > others[best] if best else None,
        note=note,
        spread=spread and (round(spread[0], 1), round(spread[1], 1)),
    )


def _outliers(figures: Figures) -> list[Row]:
    """How much slower short texts become while another client sends texts of 8,000 tokens."""
    found = []
    for name in figures.servers():
        calm, beside = _middle(figures.calm[name], "p95_ms"), _middle(figures.outliers[name], "p95_ms")
        rates = _middle(figures.calm[name], "rate"), _middle(figures.outliers[name], "rate")
        grown = figures.rss_mib[name][1] - figures.rss_mib[name][0]
        found.append(
            Row(
                f"p95 of short texts beside outliers of {OUTLIER_TOKENS:,} tokens, {name}",
                round(beside, 1),
                "ms",
                baseline=round(calm, 1),
                baseline_what="without outliers",
                target=f"≤ {STALL:g} × the baseline" if name == US else "",
                held=beside <= STALL * calm if name == US else None,
                note=f"{OUTLIER_CLIENTS} clients; {number(rates[0])} → {number(rates[1])} requests/s; memory "
                f"{grown:+.0f} MiB",
            )
        )
    return found


def _details(figures: Figures) -> list[Row]:
    found = []
    for (kind, clients, name), turns in figures.turns.items():
        for what, unit in (
            ("p50_ms", "ms"),
            ("p95_ms", "ms"),
            ("mean_batch", "texts"),
            ("cpu_ms", "ms"),
            ("rate", "requests/s"),
        ):
            values = [float(getattr(turn, what)) for turn in turns]
            label = {"p50_ms": "p50", "p95_ms": "p95", "mean_batch": "mean batch", "cpu_ms": "CPU per answer"}
            spread = round(min(values), 2), round(max(values), 2)
            found.append(
                Row(
                    f"{kind}, {clients} clients, {name}: {label.get(what, 'requests')}",
                    round(statistics.median(values), 2), unit, spread=spread, detail=True,
                )
            )  # fmt: skip
    for name, share in figures.idle.items():
        found.append(Row(f"{name}: CPU without requests", round(share, 3), "cores", detail=True))
    for (name, setting), rate in figures.tried.items():
        found.append(
            Row(f"{name}, {setting}: requests, geometric mean", round(rate, 1), "requests/s", detail=True)
        )
    return found


def _middle(turns: Sequence[Turn], what: str) -> float:
    return float(statistics.median(getattr(turn, what) for turn in turns))
