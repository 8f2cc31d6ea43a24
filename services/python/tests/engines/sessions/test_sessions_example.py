"""Tests that the example session workload and the example strategy do what their chapter of the tour says."""

from __future__ import annotations

from pathlib import Path

import pytest

from daybreak_server.batching.iterations import IterationRules, Phase
from daybreak_server.domain.sessions import SAMPLE_BYTES, SessionEnd, Turn
from daybreak_server.workloads import discovery
from daybreak_server.workloads.base import Group
from tests.engines.sessions.test_session_table import Bench

EXAMPLES = Path(__file__).parents[5] / "examples"
BLOCK = 8000
SILENCE, SOFT, LOUD = (bytes(BLOCK * SAMPLE_BYTES), b"\x00\x02" * BLOCK, b"\x00\x40" * BLOCK)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A group with the example workload and the example strategy."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = discovery.spec("loudness:SPEC")
    model = discovery.implementation(spec)
    model.load(Group(options={}))
    model.warm_up()
    bench = Bench(model, IterationRules(strategy="alternate:Alternate"))
    (pair,) = spec.pairs({})
    assert bench.table.scheduler.rules.strategy == "alternate:Alternate"
    bench.languages = {"source": pair.source, "target": pair.target}
    return bench


def test_the_example_writes_how_loud_each_block_is(bench: Bench) -> None:
    bench.take("a", audio=SILENCE + SOFT + LOUD + SILENCE + LOUD[:6000], input_ended=True)
    bench.run()
    assert bench.text("a") == "silence soft loud silence loud "
    assert bench.of("a")[-1].end is SessionEnd.FINISHED
    assert bench.table.measured.room == 64


def test_another_group_continues_a_turn_of_the_example(bench: Bench) -> None:
    """The first group has written the first word of a turn of two blocks. This group writes the second word."""
    turn = Turn(start=0, end=2 * BLOCK, tokens=(1,), complete=False)
    bench.take("a", audio=SOFT + LOUD + SILENCE, turns=(turn,))
    bench.run()
    assert bench.text("a") == "loud silence "


def test_the_strategy_of_the_example_forms_the_batches(bench: Bench) -> None:
    for name in "abcde":
        bench.take(name, audio=LOUD + SILENCE)
    bench.run()
    assert {bench.text(name) for name in "abcde"} == {"loud silence "}
    records = list(bench.table.scheduler.history)
    assert [record.phase for record in records] == [Phase.PREFILL, Phase.DECODE] * 5
    begun = [record.prefill for record in records[::2]]
    assert begun == [("a", "b"), ("c", "d"), ("e", "a"), ("b", "c"), ("d", "e")]
    assert [record.decode for record in records[1::2]] == begun
    assert [record.tokens for record in records] == [2, 0] * 5
