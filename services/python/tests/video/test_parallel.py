"""Tests that a group of gloo ranks gives the same bytes as one process, and that all of its ranks take part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import video_support as support
from video_support import Case

WIDE: dict[str, Any] = {
    "size": "64x32",
    "frames": 9,
    "steps": 3,
    "guidance": 3.0,
    "negative_prompt": "blurry",
}
ODD: dict[str, Any] = {"size": "48x32", "frames": 9, "steps": 2, "guidance": 3.0}
"""A video of 3 x 2 x 3 = 18 tokens, which 4 ranks cannot share evenly."""

CASES: list[tuple[str, str, int, dict[str, Any], dict[str, Any], str]] = [
    # name, model, ranks, plan, parameters, words in the explanation of the plan
    ("ulysses-2", "single", 2, {"ulysses": 2}, WIDE, "Ulysses 2"),
    ("ulysses-4", "single", 4, {"ulysses": 4}, WIDE, "Ulysses 4"),
    ("cfg-2", "a14b", 2, {}, WIDE, "CFG 2"),
    (
        "cfg-2-ulysses-2",
        "a14b",
        4,
        {},
        {**WIDE, "guidance_2": 2.0},
        "CFG 2 (guided | unguided pass) × Ulysses 2",
    ),
    ("per-token-timesteps", "ti2v", 4, {}, {**WIDE, "size": "64x64"}, "CFG 2"),
    ("unguided", "single", 4, {}, {**WIDE, "guidance": 1.0}, "CFG 2"),
    ("uneven-tokens", "single", 4, {"ulysses": 4}, ODD, "Ulysses 4"),
]


def options(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    return {"model": str(folder), "threads": 1, **({"parallel": plan} if plan else {})}


@pytest.fixture(scope="module")
def replies(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Any]]]:
    cases = [
        Case(name, world, options(folders[model], plan), fields, words)
        for name, model, world, plan, fields, words in CASES
    ]
    with support.spawned(cases, tmp_path_factory.mktemp("ranks")) as replies_by_case:
        yield replies_by_case


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "model", "world", "plan", "fields", "words"), CASES, ids=[case[0] for case in CASES]
)
def test_a_group_gives_the_same_bytes_as_one_process(
    folders: dict[str, Path], replies: dict[str, list[Any]], tmp_path: Path, name: str, model: str,
    world: int, plan: dict[str, Any], fields: dict[str, Any], words: str,
) -> None:  # fmt: skip
    """Frames and files are equal byte for byte, all ranks yield the same steps, and each rank runs collectives."""
    serial = support.workload({"model": folders[model]})
    steps, recorder = support.run(serial, support.params(folders[model], **fields), tmp_path / "serial")
    outline = [(step.phase, step.fraction, step.step, step.steps) for step in steps]
    answers = replies[name]
    assert sorted(rank for rank, *_ in answers) == list(range(world))
    for rank, chosen, collectives, yields, files, frames in answers:
        assert words in chosen.explain(4)
        assert collectives > 0
        assert yields == outline
        assert files == (recorder.files if rank == 0 else {})
        if rank == 0:
            assert frames == recorder.frames
