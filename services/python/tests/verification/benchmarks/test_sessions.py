"""The simulation of sessions agrees with results calculated by hand, is repeatable, and draws what it ran."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from daybreak_server.batching.iterations import IterationRules, Strategy
from verification.benchmarks.sessions import __main__ as program
from verification.benchmarks.sessions import second, table
from verification.benchmarks.sessions.costs import TINY_SPEECH, Costs
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.simulation import Load, Run, most_users
from verification.benchmarks.sessions.strategies import ALL, SCENES
from verification.results import load as load_report

ROUND = Costs(prefill=((1, 100.0), (32, 100.0)), decode=((1, 50.0), (32, 50.0)))
"""A prefill takes 100 ms and a decode 50 ms, whatever their size."""


def test_costs_between_two_measured_sizes_are_interpolated() -> None:
    """A mixed batch saves a call of the language model. A size above the largest measured one is an error."""
    assert TINY_SPEECH.seconds(1, 0) == pytest.approx(0.004)
    assert TINY_SPEECH.seconds(20, 0) == pytest.approx((10.3 + 33) / 2 / 1000)
    saved = 1.3 - (3.0 - 1.3) / 7
    assert TINY_SPEECH.seconds(1, 8) == pytest.approx((4.0 + 3.0 - saved) / 1000)
    half = 4.0 - (10.3 - 4.0) / 7 / 2
    assert TINY_SPEECH.seconds(0.5, 0) == pytest.approx(half / 1000)
    with pytest.raises(ValueError, match="size 33"):
        TINY_SPEECH.seconds(33, 0)


def test_the_lag_of_a_lone_user_is_the_cost_of_a_turn() -> None:
    """The prefill gives the first token. Each further token, and then the end of the turn, takes one decode."""
    load = Load(users=1, for_s=60.0, turn_s=1.0, most_tokens=3)
    outcome = Run(load, ROUND, IterationRules()).run()
    _, tokens = load.speaker(0)
    expected = [0.1 + 0.05 * next(tokens) for _ in outcome.lags]
    assert [lag for _, lag in outcome.lags] == pytest.approx(expected)
    assert outcome.tokens == pytest.approx(sum((lag - 0.1) / 0.05 for _, lag in outcome.lags), abs=3)
    assert outcome.sustains(0.3)
    assert not outcome.sustains(0.2)


@pytest.mark.parametrize("strategy", Strategy)
def test_every_turn_is_computed_once_and_in_order(strategy: Strategy) -> None:
    """This holds for every strategy, although each strategy serves the users in a different order."""
    load = Load(users=7, for_s=30.0, turn_s=1.0, most_tokens=4)
    run = Run(load, TINY_SPEECH, IterationRules(strategy=strategy), keep_records=True)
    outcome = run.run()
    for user in range(load.users):
        begun = [record.started for record in outcome.records if user in record.prefill]
        complete = run.ready[user]
        assert 0 <= len(complete) - len(begun) <= 1
        assert all(audio <= start for audio, start in zip(complete, begun, strict=False))
    assert sum(record.seconds for record in outcome.records) == pytest.approx(outcome.busy_s)


def test_the_same_seed_gives_the_same_run() -> None:
    """Another seed gives other speech."""

    def lags(seed: int) -> list[tuple[float, float]]:
        return Run(Load(users=20, for_s=5.0, seed=seed), TINY_SPEECH, IterationRules()).run().lags

    assert lags(1) == lags(1) != lags(2)


def test_an_overloaded_device_is_noticed() -> None:
    """If the lag grows, the device counts as overloaded, even if the lag is still below the limit when the run ends."""
    load = Load(users=6, for_s=120.0, turn_s=1.0, most_tokens=3)  # per second: 6 turns of 175 ms on average
    slightly = Run(load, ROUND, IterationRules(strategy=Strategy.SINGLE)).run()
    assert slightly.grows
    assert not slightly.gave_up
    assert not slightly.sustains(math.inf)
    hopeless = Run(Load(users=64, for_s=400.0, turn_s=0.5), ROUND, IterationRules(strategy=Strategy.SINGLE))
    assert hopeless.run().gave_up


def test_the_search_finds_the_largest_number_of_users() -> None:
    """The result is within 1 % of the largest number. The search ends at 1024 users."""

    def limited(most: int) -> int:
        def simulate(users: int) -> Outcome:
            outcome = Outcome(for_s=3.0)
            outcome.lags = [(at / 10, 1.0 if users <= most else 9.0) for at in range(30)]
            return outcome

        return most_users(simulate, limit_s=2.0)[0]

    for most in (0, 1, 2, 3, 7, 67, 100):
        assert limited(most) == most
    assert limited(290) == pytest.approx(290, rel=0.01)
    assert limited(10_000) == pytest.approx(1024, rel=0.01)


def test_gathering_sustains_more_than_one_turn_at_a_time() -> None:
    """A device that batches steps sustains at least twice as many sessions as one that runs one turn at a time."""
    (scene, *_) = SCENES
    single = scene.run(67 * 2, ALL[0].rules[0], for_s=24.0, seed=1)
    gathers = scene.run(67 * 2, IterationRules(), for_s=24.0, seed=1)
    assert single.grows
    assert gathers.sustains(2.0)


def test_a_quick_run_leaves_rows_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has a row for each strategy and scene. The saved file also has rows with details."""
    monkeypatch.setattr(program, "SCENES", SCENES[1:])
    monkeypatch.setattr(program, "QUICK_S", 6.0)
    assert program.main(["simulated", "second", "--quick", "--out", str(tmp_path)]) == 0
    report = load_report(tmp_path / f"{table.NAME}.json")
    assert len([row for row in report.rows if not row.detail]) == len(ALL)
    assert any(row.detail for row in report.rows)
    for name in (f"{table.NAME}.svg", "one-second-of-batches.svg"):
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")


def test_the_picture_has_a_box_for_each_step_of_each_session(tmp_path: Path) -> None:
    """Only steps within the second that is drawn have a box."""
    run = Run(Load(users=4, for_s=4.0, turn_s=1.0), ROUND, IterationRules(), keep_records=True)
    records = run.run().records
    ready = dict(enumerate(run.ready))
    path = second.draw(
        [second.Panel(title="<t>", records=records, ready=ready, begins=2.0)], tmp_path / "x.svg"
    )
    text = path.read_text()
    shown = [record for record in records if record.started < 3.0 and record.started + record.seconds > 2.0]
    for color, sessions in (
        (second.PREFILL, [entry for record in shown for entry in record.prefill]),
        (second.DECODE, [entry for record in shown for entry in record.decode]),
    ):
        assert sessions
        assert text.count(f'fill="{color}"') == len(sessions) + 1, "one more in the legend"
    marks = sum(2.0 <= at < 3.0 for times in run.ready for at in times)
    assert text.count(f'stroke="{second.READY}"') == marks + 1
    assert math.isfinite(float(ElementTree.parse(path).getroot().attrib["viewBox"].split()[-1]))


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the parts that exist."""
    with pytest.raises(SystemExit):
        program.main(["nothing"])
    assert "simulated, second" in capsys.readouterr().err
