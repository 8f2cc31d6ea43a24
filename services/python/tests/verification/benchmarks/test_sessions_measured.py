"""Tests of the measurement of sessions: the users, the search for their number, the costs of steps, and late turns."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from daybreak_server.batching.iterations import IterationRules, Strategy
from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.simulated_speech.model import SimulatedSpeech
from daybreak_server.workloads.speech.model import Speech
from testkit.speech_models import loaded
from verification.benchmarks.sessions import __main__ as program
from verification.benchmarks.sessions.measured import measure, search, steps, table
from verification.benchmarks.sessions.measured.paced import PacedRun
from verification.benchmarks.sessions.measured.search import Steps
from verification.benchmarks.sessions.measured.speakers import PLACES, TARGETS, References, speakers
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.strategies import GATHER, REQUEST, SINGLE
from verification.results import load as load_report

TURN_S = 0.48
FINE = Steps(factor=1.5, until=1.0)


def lagging(lag_s: float, *, tokens: int = 0) -> Outcome:
    """A run in which all turns are equally late."""
    return Outcome(for_s=3.0, lags=[(at / 10, lag_s) for at in range(30)], tokens=tokens)


def simulated(**options: float) -> SimulatedSpeech:
    """The workload that sleeps as long as a model would compute."""
    model = SimulatedSpeech()
    model.load(Group(options={"prefill_item_ms": 0, "decode_ms": 0, "decode_item_ms": 0, **options}))
    return model


def test_users_begin_in_different_places_and_at_different_moments() -> None:
    users = speakers(2 * PLACES * len(TARGETS), for_s=2.0, turn_s=TURN_S)
    assert len({user.audio for user in users}) == PLACES
    assert len({(user.place, user.target) for user in users}) == PLACES * len(TARGETS)
    starts = sorted(user.starts_s for user in users)
    assert 0 <= starts[0] <= starts[-1] < TURN_S
    assert max(b - a for a, b in itertools.pairwise(starts)) < TURN_S / 8
    assert all(len(user.audio) >= 2.0 * SAMPLE_RATE * SAMPLE_BYTES for user in users)


@pytest.fixture(scope="module")
def model() -> Speech:
    return loaded()


@pytest.fixture(scope="module")
def references(model: Speech) -> References:
    return References(model, for_s=1.0)


@pytest.mark.parametrize(
    "rules",
    [
        *(IterationRules(strategy=strategy) for strategy in Strategy),
        IterationRules(strategy=Strategy.MIXED, max_batch_tokens=14),
    ],
    ids=[*Strategy, "chunked"],
)
def test_every_strategy_writes_the_text_of_sessions_alone(
    model: Speech, references: References, rules: IterationRules
) -> None:
    """Each turn is counted once, with its lag."""
    users = speakers(8, for_s=1.0, turn_s=TURN_S)
    run = PacedRun(model, rules, users, for_s=1.0, limit_s=30.0)
    outcome = run.run()
    assert run.differing(references) == 0
    assert len(outcome.lags) == sum(map(len, run.turns)) > 0
    assert all(lag > 0 for _, lag in outcome.lags)
    assert outcome.tokens >= sum(len(turn) for turns in run.turns for turn in turns)
    assert sum(outcome.sizes) >= len(outcome.lags)
    assert 0 < outcome.busy < 1
    assert model.memory()[0] == 0, "sessions stay open after the run"


def test_other_tokens_than_those_of_a_session_alone_are_noticed(references: References) -> None:
    (user, *_) = speakers(1, for_s=1.0, turn_s=TURN_S)
    assert not references.differs(user, [])
    assert references.differs(user, [(10_000,)])


def test_an_overloaded_model_does_not_sustain_its_users() -> None:
    """The model takes 700 ms for a turn of 480 ms.

    The third turn is the first that counts. It is too late, so the run stops.
    """
    users = speakers(1, for_s=4.0, turn_s=TURN_S)
    run = PacedRun(
        simulated(prefill_ms=700), IterationRules(strategy=Strategy.SINGLE), users, for_s=4.0, limit_s=0.5
    )
    outcome = run.run()
    assert outcome.gave_up
    assert outcome.grows
    assert not outcome.sustains(0.5)


def test_turns_that_did_not_end_count_as_late() -> None:
    """The first step takes longer than the user speaks, so no turn ends."""
    users = speakers(1, for_s=2.0, turn_s=TURN_S)
    run = PacedRun(simulated(prefill_ms=2_500), IterationRules(), users, for_s=2.0, limit_s=0.5)
    outcome = run.run()
    ready = [TURN_S, 2 * TURN_S, 3 * TURN_S]
    assert [at for at, _ in outcome.lags] == pytest.approx(ready)
    assert [lag for _, lag in outcome.lags] == pytest.approx([2.0 - at for at in ready])
    assert outcome.tokens <= 1
    assert not outcome.sustains(0.5)


@pytest.mark.parametrize("most", [0, 1, 5, 8, 9, 73, 100, 500])
def test_the_search_finds_the_largest_number_of_users(most: int) -> None:
    """The search may begin above or below the result, and tries no number twice."""
    runs: list[int] = []

    def run(users: int) -> Outcome:
        runs.append(users)
        return lagging(1.0 if users <= most else 9.0)

    tried = search.climb(run, start=9, at_most=100, limit_s=2.0, steps=FINE)
    sessions, best = search.most(tried, limit_s=2.0)
    assert sessions == min(most, 100)
    assert (best is None) == (most == 0)
    assert len(runs) == len(set(runs)) == len(tried)
    assert max(runs) <= 100


def test_the_search_stops_when_it_is_fine_enough() -> None:
    tried = search.climb(
        lambda users: lagging(1.0 if users <= 73 else 9.0),
        start=10,
        at_most=1000,
        limit_s=2.0,
        steps=search.FULL,
    )
    sessions, _ = search.most(tried, limit_s=2.0)
    next_one = min(users for users, _ in tried if users > sessions)
    assert next_one <= sessions * search.FULL.until
    assert sessions <= 73 < next_one


def test_a_number_sustained_by_chance_does_not_count_if_a_smaller_one_was_not() -> None:
    tried = [(4, lagging(1.0)), (6, lagging(9.0)), (9, lagging(1.0))]
    assert search.most(tried, limit_s=2.0)[0] == 4


def test_throughput_at_a_lag_is_interpolated() -> None:
    curve = [(1, lagging(0.1, tokens=30)), (2, lagging(0.2, tokens=60)), (4, lagging(0.4, tokens=90))]
    assert search.throughput_at(curve, 0.3) == pytest.approx(25.0)
    assert search.throughput_at(curve, 0.2) == pytest.approx(20.0)
    assert search.throughput_at(curve, 5.0) == pytest.approx(30.0)
    assert search.throughput_at(curve, 0.05) == 0.0
    assert search.throughput_at([], 1.0) == 0.0


@pytest.mark.system
def test_a_short_run_leaves_rows_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run leaves no files of the parts ``simulated`` and ``second``."""
    monkeypatch.setattr(
        measure, "QUICK", measure.Plan(for_s=1.0, rounds=1, steps=Steps(factor=9.0, until=9.0))
    )
    monkeypatch.setattr(measure, "ALL", (SINGLE, REQUEST, GATHER))
    monkeypatch.setattr(steps, "SIZES", (1, 8))
    monkeypatch.setattr(steps, "SESSIONS", 24)
    monkeypatch.setattr(steps, "DECODES", 2)
    monkeypatch.setattr(steps, "FILL_TURNS", 2)
    assert program.main(["measured", "--quick", "--out", str(tmp_path)]) == 0
    report = load_report(tmp_path / f"{table.NAME}.json")
    shown = {row.what: row for row in report.rows if not row.detail}
    assert len(shown) == 7
    assert shown["one turn at a time"].value > 0
    assert shown["sessions whose tokens differ from those of a session alone"].held
    assert any(row.detail for row in report.rows)
    costs = load_report(tmp_path / f"{table.STEPS_NAME}.json")
    alone, together = (row for row in costs.rows if row.what.startswith("prefill"))
    assert alone.value < together.value < 8 * alone.value
    assert all(math.isfinite(row.value) for row in costs.rows)
    assert costs.rows[-1].what.startswith("both phases")
    assert costs.rows[-1].value > 0
    assert (costs.rows[-1].baseline or 0) > 0
    assert ElementTree.parse(tmp_path / f"{table.NAME}.svg").getroot().tag.endswith("svg")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".svg"]
