"""The demo model obeys: every prompt through the whole video workload, judged from the frames of its MP4."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("av")

import video_support as support

from daybreak_server.workloads.video.pipeline.encode import read_mp4
from daybreak_server.workloads.video.spec.params import SPEC
from verification.tiny_model.check import read
from verification.tiny_model.shapes import SUBJECTS


@pytest.mark.tiny
@pytest.mark.timeout(900)
def test_all_sixty_prompts_are_followed(tmp_path: Path) -> None:
    """Seeds 0 to 59: at least 57 right in colour, 57 in direction, and 48 (80 %) in shape."""
    made = support.workload({"warm_up": False})
    right: Counter[str] = Counter()
    wrong: list[str] = []
    for seed, subject in enumerate(SUBJECTS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        params = SPEC.validate({"prompt": subject.caption, "seed": seed}, {})
        support.run(made, params, folder)
        seen = read(read_mp4(folder / "video.mp4"))
        for trait in ("colour", "direction", "shape"):
            hit = getattr(seen, trait) == getattr(subject, trait)
            right[trait] += hit
            if not hit:
                wrong.append(f"{subject.caption}, seed {seed}: {trait} {getattr(seen, trait)}")
    assert len(SUBJECTS) == 60
    assert right["colour"] >= 57, wrong
    assert right["direction"] >= 57, wrong
    assert right["shape"] >= 48, wrong
