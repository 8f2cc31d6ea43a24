"""Tests of the picture that shows lag over throughput."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from verification.benchmarks.sessions.curves import Panel, draw
from verification.benchmarks.sessions.strategies import ALL

NAMES = [
    "one turn at a time",
    "request-level, as `@serve.batch`",
    "by iterations, strictly prefill first",
] * 2


def test_each_strategy_has_a_line_of_its_own_color(tmp_path: Path) -> None:
    lines = [(contender.name, [(1.0, 10.0), (2.0, 20.0)]) for contender in ALL]
    picture = draw([Panel(title="scene", lines=lines)], tmp_path / "x.svg").read_text()
    colors = re.findall(r'fill="none" stroke="(#\w+)"', picture)
    assert len(set(colors)) == len(colors) == len(ALL)
    assert re.findall(r'h18" stroke="(#\w+)"', picture) == colors


@pytest.mark.parametrize("panels", [1, 2])
def test_the_whole_legend_is_inside_the_picture(tmp_path: Path, panels: int) -> None:
    lines = [(name, [(1.0, 10.0), (2.0, 20.0)]) for name in NAMES[:5]]
    picture = draw([Panel(title="scene", lines=lines)] * panels, tmp_path / "x.svg").read_text()
    found = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture)
    assert found is not None
    width, height = map(int, found.groups())
    texts = re.findall(r'<text x="(\d+)" y="(\d+)">([^<]+)</text>', picture)
    assert [text for _, _, text in texts] == [name.replace("`", "") for name in NAMES[:5]]
    for x, y, text in texts:
        assert int(x) + 5 * len(text) < width
        assert int(y) < height
