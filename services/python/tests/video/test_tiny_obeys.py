"""Runs every prompt of the tiny model through the whole video workload, and checks the frames of the MP4s."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("av")

import video_support as support

from daybreak_server.workloads.video.pipeline.encode import read_mp4
from daybreak_server.workloads.video.spec.params import SPEC
from verification.tiny_wan.check import read
from verification.tiny_wan.shapes import SUBJECTS


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_workload_follows_all_sixty_prompts_of_the_tiny_model(tmp_path: Path) -> None:
    """Each prompt has its own seed, from 0 to 59. Of the 60 videos, at least 57 have the right colour, at least 57 the
    right direction, and at least 48 (80 %) the right shape.
    """
    workload = support.workload({"warm_up": False})
    right: Counter[str] = Counter()
    wrong: list[str] = []
    for seed, subject in enumerate(SUBJECTS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        params = SPEC.validate({"prompt": subject.caption, "seed": seed}, {})
        support.run(workload, params, folder)
        seen = read(read_mp4(folder / "video.mp4"))
        for trait in ("colour", "direction", "shape"):
            matches = getattr(seen, trait) == getattr(subject, trait)
            right[trait] += matches
            if not matches:
                wrong.append(f"{subject.caption}, seed {seed}: {trait} {getattr(seen, trait)}")
    assert len(SUBJECTS) == 60
    assert right["colour"] >= 57, wrong
    assert right["direction"] >= 57, wrong
    assert right["shape"] >= 48, wrong
