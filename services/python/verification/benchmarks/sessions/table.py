"""The report of the simulated sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verification.benchmarks.sessions.curves import Panel
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.strategies import ALL, GATHER, REQUEST, SINGLE, Contender, Scene
from verification.results import Report, Row

NAME = "sessions-simulated"
ABOUT = """Simulated in virtual time, with the scheduler that groups run. All users speak without pauses, in real \
time, and begin at different moments; all strategies get the same speech. A number of sessions is *sustained* if 95 % \
of the turns end less than {limit:g} s after their audio was complete, and the lag does not grow. The costs of \
steps are inputs, not results:

- *Tiny speech model, one CPU core*: turns of 0.48 s with 0 to 5 tokens. The costs \
were measured on an early version of the tiny model, for batches of 1, 8 and 32: a prefill takes 4.0, 10.3 and \
33 ms, a decode 1.3, 3.0 and 7.7 ms.
- *Device with flat costs*: turns of 0.96 s with 0 to 20 tokens; the costs are \
assumed: a prefill takes 30 ms + 1 ms for each session, a decode 15 ms + 0.1 ms.
- A step that has both prefills and \
decodes calls the language model only once, so the fixed part of the cost of a decode is not added. In the limit \
`max_batch_tokens`, a block of audio (0.48 s) counts as 6 tokens.
- Each piece of a divided turn costs the fixed part of a call, plus its share of the \
cost of the turn.
- Not simulated: Redis, the network, other work on the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The number of sessions that a strategy sustains in a scene, and the lag of its turns by the number of
    users."""

    sessions: int
    best: Outcome | None
    curve: Sequence[tuple[int, Outcome]]
    """Each number of users with which the lag does not grow, and the figures of the run with this number."""
    rules: str


Results = Mapping[Scene, Mapping[Contender, Found]]


def report(results: Results, *, seed: int, limit_s: float) -> Report:
    """The report with all rows."""
    made = Report(
        name=NAME,
        title="Streaming sessions by the strategy of batches, simulated",
        about=ABOUT.format(limit=limit_s),
        seed=seed,
    )
    for scene, by_contender in results.items():
        for contender in ALL:
            made.add(sustained(contender, by_contender, prefix=f"{scene.name}: "))
    for scene, by_contender in results.items():
        for contender, found in by_contender.items():
            for users, outcome in found.curve:
                made.add(point(contender, users, outcome, prefix=f"{scene.name}: "))
    return made


def sustained(contender: Contender, results: Mapping[Contender, Found], *, prefix: str = "") -> Row:
    """How many sessions a strategy sustains."""
    found, single, request = results[contender], results[SINGLE].sessions, results[REQUEST].sessions
    note = ""
    if found.best is not None:
        lags = f"lag p50 {found.best.lag(0.5) * 1000:.0f} ms, p95 {found.best.lag(0.95) * 1000:.0f} ms"
        note = f"{lags}; {found.best.mean_batch:.1f} sessions a batch{found.rules}"
    default = contender is GATHER
    return Row(
        f"{prefix}{contender.name}",
        found.sessions,
        "sessions",
        baseline=None if contender is SINGLE else single,
        baseline_what="" if contender is SINGLE else "one turn at a time",
        target="≥ 2 × the baseline, and more than request-level" if default else "",
        held=found.sessions >= 2 * single and found.sessions > request if default else None,
        note=note,
    )


def point(contender: Contender, users: int, outcome: Outcome, *, prefix: str = "") -> Row:
    """The row that shows how late the turns are with this number of users."""
    return Row(
        f"{prefix}{contender.name}, {users} users: median lag",
        outcome.lag(0.5) * 1000,
        "ms",
        note=f"p95 {outcome.lag(0.95) * 1000:.0f} ms, {outcome.tokens_s:.0f} tokens/s, busy {outcome.busy:.2f}",
        detail=True,
    )


def panel(results: Mapping[Contender, Found], *, title: str) -> Panel:
    """The curves of all strategies: the median lag at each throughput."""
    return Panel(
        title=title,
        lines=[
            (
                contender.name,
                [(outcome.tokens_s, outcome.lag(0.5) * 1000) for _, outcome in found.curve],
            )
            for contender, found in results.items()
        ],
    )
