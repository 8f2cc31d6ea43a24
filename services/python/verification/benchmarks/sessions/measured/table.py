"""Two reports of the measurement: how many sessions each strategy sustains, and what a step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verification.benchmarks.sessions.costs import Costs
from verification.benchmarks.sessions.measured.search import throughput_at
from verification.benchmarks.sessions.measured.steps import DECODES, PREFILLS, MixedCosts
from verification.benchmarks.sessions.strategies import SINGLE, Contender
from verification.benchmarks.sessions.table import Found, point, sustained
from verification.results import Report, Row

NAME, STEPS_NAME = "sessions", "sessions-steps"
EQUAL_LAG_S = 0.25
ABOUT = """What is measured is the engine of a group with the tiny speech model of the package, in one process with \
one thread of torch. Users speak the clips of the model in real time. Each user begins at another place in the clips, \
and is translated into one of two languages. A turn is {turn_ms:.0f} ms of audio, and has {tokens:.2f} tokens on \
average. All strategies ran one after the other in one run, for {for_s:g} s with each number of users; the first third \
of this time does not count. A number of users is *sustained* if 95 % of the turns end less than {limit:g} s after \
their audio was complete, and the lag does not grow. At the next number of users that was tried, at most {until:.0f} % \
more, one of these two conditions failed. Not measured: the gateway, Redis and the network."""
STEPS_ABOUT = """How long a step of the tiny speech model of the package takes, by the number of its sessions. The \
figures are medians, on one thread of torch, with full windows. *Prefill*: a turn of {turn_ms:.0f} ms goes through the \
encoder and the language model. *Decode*: one token. *Both phases*: some sessions prefill, and others decode, in one \
step. For *prefill* and *decode*, the baseline is the same step with one session. If 32 sessions take 32 times as \
long, a batch saves nothing; if they take as long as one, further sessions cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured in one run."""

    results: Mapping[Contender, Found]
    costs: Costs
    mixed: MixedCosts
    turn_s: float
    tokens_per_turn: float
    for_s: float
    until: float
    """The search ends when the lowest number of users that was not sustained is at most this many times the highest
    sustained number, or only 1 above it."""
    users: int
    """The numbers of users of all sustained runs, added up."""
    differing: int
    """How many of these users got other tokens than they would get alone."""


def report(measured: Measured, *, limit_s: float) -> Report:
    """How many sessions each strategy sustains, with which lag and throughput."""
    made = Report(
        name=NAME,
        title="Streaming sessions by the strategy of batches, measured",
        about=ABOUT.format(
            turn_ms=measured.turn_s * 1000,
            tokens=measured.tokens_per_turn,
            for_s=measured.for_s,
            limit=limit_s,
            until=100 * (measured.until - 1),
        ),
    )
    results = measured.results
    for contender in results:
        made.add(sustained(contender, results))
    base = throughput_at(results[SINGLE].curve, EQUAL_LAG_S)
    for contender, found in results.items():
        made.add(_throughput(contender, found, base))
    made.add(
        Row(
            "sessions whose tokens differ from those of a session alone",
            measured.differing,
            "sessions",
            target="none",
            held=measured.differing == 0,
            note=f"of {measured.users} sessions of all sustained runs",
        )
    )
    for contender, found in results.items():
        for users, outcome in found.curve:
            made.add(point(contender, users, outcome))
    return made


def _throughput(contender: Contender, found: Found, base: float) -> Row:
    return Row(
        f"throughput with a median lag of {EQUAL_LAG_S * 1000:.0f} ms: {contender.name}",
        round(throughput_at(found.curve, EQUAL_LAG_S), 1),
        "tokens/s",
        baseline=None if contender is SINGLE else round(base, 1),
        baseline_what="" if contender is SINGLE else "one turn at a time",
    )


def steps_report(measured: Measured) -> Report:
    """What a step costs, by the number of its sessions."""
    made = Report(
        name=STEPS_NAME,
        title="The cost of a step by the number of its sessions",
        about=STEPS_ABOUT.format(turn_ms=measured.turn_s * 1000),
    )
    for phase, points in (("prefill", measured.costs.prefill), ("decode", measured.costs.decode)):
        (_, alone), *_ = points
        for size, cost in points:
            made.add(
                Row(
                    f"{phase}, {size} {'session' if size == 1 else 'sessions'}",
                    round(cost, 3),
                    "ms",
                    baseline=None if size == 1 else round(alone, 3),
                    baseline_what="" if size == 1 else "one session",
                    note=f"{cost / size:.2f} ms a session",
                )
            )
    made.add(
        Row(
            f"both phases, {PREFILLS} prefill and {DECODES} decode",
            round(measured.mixed.together, 3),
            "ms",
            baseline=round(measured.mixed.apart, 3),
            baseline_what="a step of each phase",
        )
    )
    return made
