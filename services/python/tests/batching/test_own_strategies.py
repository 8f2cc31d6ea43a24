"""A strategy from outside the package is found by its name, chooses the batches, and cannot damage the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.batching.iterations import (
    Batch,
    BatchStrategy,
    Choice,
    IterationRules,
    Phase,
    Scheduler,
    Waiting,
    WrongChoiceError,
    strategy_names,
)

EXAMPLES = Path(__file__).parents[4] / "examples"


class Newest(BatchStrategy[str]):
    """Each batch has only the session that became ready last. Tests set ``chosen`` to a wrong choice."""

    chosen: Choice[str] | None = None

    def choose(self, waiting: Waiting[str], rules: IterationRules, now: float) -> Choice[str] | None:
        if self.chosen is not None:
            return self.chosen
        ready = [*waiting.prefill.items(), *waiting.decode.items()]
        if not ready:
            return None
        session = max(ready, key=lambda item: item[1].at)[0]
        phase = "prefill" if session in waiting.prefill else "decode"
        return Choice(**{phase: (session,)})


class Unfinished(BatchStrategy[str]):
    """Has no ``choose``."""


class Demanding(Newest):
    """Cannot be created without an argument."""

    def __init__(self, size: int) -> None: ...


def path_of(strategy: type) -> str:
    return f"{strategy.__module__}:{strategy.__name__}"


def scheduler_of(strategy: str, *sessions: str, **rules: Any) -> Scheduler[str]:
    scheduler: Scheduler[str] = Scheduler(IterationRules(strategy=strategy, **rules))
    for number, session in enumerate(sessions):
        scheduler.prefill_ready(session, float(number), seconds=0.5)
    return scheduler


def run(scheduler: Scheduler[str], now: float, more: Callable[[str], bool] = lambda session: False) -> None:
    """Run a batch for one second; ``more``: whether a session needs another token."""
    batch = scheduler.next(now)
    assert isinstance(batch, Batch)
    continued = [session for session in batch.sessions if more(session)]
    for session in continued:
        scheduler.decode_ready(session, now + 1)
    scheduler.complete(batch, now + 1, tokens=len(continued))


def test_a_strategy_from_outside_the_package_chooses_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strategy is the example of the tour. There are five sessions, each with one turn of two tokens."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    scheduler = scheduler_of("alternate:Alternate", *"abcde", max_batch_size=3)
    left = dict.fromkeys("abcde", 2)

    def more(session: str) -> bool:
        left[session] -= 1
        return left[session] >= 0

    for step in range(7):
        run(scheduler, 5.0 + step, more)
    prefill, decode = Phase.PREFILL, Phase.DECODE
    assert [
        (record.phase, record.prefill + record.decode, record.tokens) for record in scheduler.history
    ] == [
        (prefill, ("a", "b"), 2),
        (decode, ("a", "b"), 2),
        (prefill, ("c", "d"), 2),
        (decode, ("a", "b", "c"), 1),
        (prefill, ("e",), 1),
        (decode, ("d", "c", "e"), 2),
        (decode, ("d", "e"), 0),
    ]
    assert [record.waited_s for record in scheduler.history] == [5.0, 0.0, 5.0, 1.0, 5.0, 2.0, 0.0]
    assert scheduler.next(12.0) is None


def test_a_changed_strategy_chooses_from_the_next_batch_on() -> None:
    scheduler = scheduler_of("iteration", *"abc", max_batch_size=1)
    run(scheduler, 3.0)
    scheduler.rules = IterationRules(strategy=path_of(Newest))
    run(scheduler, 4.0)
    scheduler.rules = IterationRules(strategy="single")
    run(scheduler, 5.0)
    assert [record.prefill for record in scheduler.history] == [("a",), ("c",), ("b",)]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(), "a batch of 0 sessions"),
        (Choice(prefill=("a", "b", "c")), "a batch of 3 sessions; it may have from 1 to 2"),
        (Choice(prefill=("z",)), "'z', which does not wait for prefill"),
        (Choice(decode=("a",)), "'a', which does not wait for decode"),
        (Choice(prefill=("a", "a")), "'a', which does not wait for prefill"),
    ],
)
def test_a_wrong_choice_names_the_strategy(choice: Choice[str], message: str) -> None:
    scheduler = scheduler_of(path_of(Newest), *"abc", max_batch_size=2)
    strategy: Any = scheduler._strategy
    strategy.chosen = choice
    with pytest.raises(WrongChoiceError, match=message) as wrong:
        scheduler.next(3.0)
    assert path_of(Newest) in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fast", "no strategy 'fast'; use iteration, mixed, request, single, or package.module:Class"),
        ("nowhere.at.all:Fast", "cannot be imported: No module"),
        ("alternative_strategies:Fast", "cannot be imported: No module"),
        (f"{__name__}:Missing", "cannot be imported: module .* has no attribute"),
        (f"{__name__}:EXAMPLES", "not a class with a method `choose`"),
        (path_of(Unfinished), "not a class with a method `choose`"),
    ],
)
def test_a_strategy_that_cannot_be_used_is_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IterationRules(strategy=name)


def test_a_strategy_that_cannot_be_created_leaves_the_former_one() -> None:
    scheduler = scheduler_of("iteration", "a")
    with pytest.raises(ValueError, match="cannot be created without arguments"):
        scheduler.rules = IterationRules(strategy=path_of(Demanding))
    assert scheduler.rules.strategy == "iteration"
    run(scheduler, 1.0)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package that declares a strategy. :returns: the strategy's name."""
    facts = tmp_path / "acme-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[daybreak.strategies]\nnewest = acme_strategies:Newest\n")
    (tmp_path / "acme_strategies.py").write_text(f"from {Newest.__module__} import Newest\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    strategy_names._installed.cache_clear()
    yield "newest"
    strategy_names._installed.cache_clear()


def test_an_installed_strategy_has_a_name(installed: str) -> None:
    assert strategy_names.names() == ["iteration", "mixed", "request", "single", installed]
    scheduler = scheduler_of(installed, *"abc")
    run(scheduler, 3.0)
    assert [record.prefill for record in scheduler.history] == [("c",)]
