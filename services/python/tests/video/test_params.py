"""Input is checked by the model's own numbers, with messages that say what to do instead."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from daybreak_server.workloads.video.params import SPEC, VideoParams, cost

A14B = {"model": "/not/on/this/machine", "family": "t2v-a14b"}
TI2V = {"model": "/not/on/this/machine", "family": "ti2v-5b"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n rest").decode()


def errors(given: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        SPEC.validate({"prompt": "a", **given}, options)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("given", "options", "field", "words"),
    [
        ({"prompt": ""}, {}, "prompt", "at least 1 character"),
        ({"prompt": "   "}, {}, "prompt", "at least 1 character"),
        ({"prompt": "a" * 2001}, {}, "prompt", "at most 2000 characters"),
        ({"prompt": 7}, {}, "prompt", "valid string"),
        ({"frames": 16}, {}, "frames", "frames must be 4n+1; 16 is not. Try 17."),
        ({"frames": 18}, {}, "frames", "Try 17."),
        ({"frames": 0}, {}, "frames", "greater than or equal to 1"),
        ({"frames": 100_001}, {}, "frames", "at most 121"),
        ({"frames": "17"}, {}, "frames", "valid integer"),
        ({"frames": 17.0}, {}, "frames", "valid integer"),
        ({"frames": True}, {}, "frames", "valid integer"),
        ({"size": "100x64"}, {}, "size", "multiple of 16 both ways; 100x64 is not. Try 96x64."),
        ({"size": "1x1"}, {}, "size", "match pattern"),
        ({"size": "64×64"}, {}, "size", "match pattern"),
        ({"size": "１２x64"}, {}, "size", "match pattern"),
        ({"size": "1024x64"}, {}, "size", "at most 512 pixels"),
        ({"size": "1280x720"}, TI2V, "size", "multiple of 32 both ways; 1280x720 is not. Try 1280x736."),
        ({"steps": 0}, {}, "steps", "greater than or equal to 1"),
        ({"steps": 101}, A14B, "steps", "at most 100"),
        ({"guidance": -1}, {}, "guidance", "greater than or equal to 0"),
        ({"guidance": float("nan")}, {}, "guidance", "finite number"),
        ({"shift": float("inf")}, {}, "shift", "finite number"),
        ({"guidance_2": 3.0}, {}, "guidance_2", "two experts"),
        ({"shift": 0}, {}, "shift", "greater than 0"),
        ({"seed": -1}, {}, "seed", "greater than or equal to 0"),
        ({"seed": 2**32}, {}, "seed", "less than or equal to"),
        ({"fps": 0}, {}, "fps", "greater than or equal to 1"),
        ({"image": PNG}, {}, "image", "takes no first image"),
        ({"image": "not base64!"}, TI2V, "image", "not valid base64"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, TI2V, "image", "PNG, JPEG or WebP"),
        ({"image": "a" * 12_289}, TI2V, "image", "at most 12288"),
        ({"colour": "red"}, {}, "colour", "not permitted"),
        ({"frames": 97}, {**A14B, "limits": {"max_tokens": 80_000}}, "frames", "90,000 tokens"),
        ({}, {**A14B, "gpu_memory_gib": 64}, "frames", "64 GiB of GPU memory"),
    ],
)
def test_bad_input_is_refused(given: dict[str, Any], options: dict[str, Any], field: str, words: str) -> None:
    """Each wrong field is named, and the message says what would be right."""
    found = errors(given, options)
    assert [name for name, _ in found] == [field]
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("options", "size", "frames", "steps", "guidance", "guidance_2"),
    [
        ({}, "64x64", 17, 20, 3.0, None),
        (A14B, "1280x720", 81, 40, 4.0, 3.0),
        (TI2V, "1280x704", 121, 50, 5.0, None),
        ({**A14B, "gpu_memory_gib": 80}, "1280x720", 81, 40, 4.0, 3.0),
    ],
)
def test_defaults_are_the_models_own(
    options: dict[str, Any], size: str, frames: int, steps: int, guidance: float, guidance_2: float | None
) -> None:
    """A prompt alone is a whole task, on each model's published settings; and they fit where they should."""
    made = SPEC.validate({"prompt": "a cat"}, options)
    assert (made.size, made.frames, made.steps) == (size, frames, steps)
    assert (made.guidance, made.guidance_2) == (guidance, guidance_2)
    assert SPEC.validate(made.model_dump(), options) == made


def test_limits_come_from_the_folder(folders: dict[str, Path]) -> None:
    """A folder's JSON decides block, defaults and whether a first image is taken."""
    assert SPEC.limits({"model": folders["ti2v"]}).multiple == 32
    assert SPEC.limits({"model": folders["single"]}).multiple == 16
    assert SPEC.limits({"model": folders["a14b"]}).two_experts
    assert SPEC.validate({"prompt": "a", "image": PNG}, {"model": folders["ti2v"]}).image == PNG
    # The position embedding of these has 32 places on each axis.
    assert errors({"frames": 129}, {"model": folders["single"], "limits": {"max_frames": 200}})


def test_seed_is_stable_over_retries() -> None:
    """Without a seed one is drawn from the task's id: the same on every try, another for another task."""
    made = VideoParams(prompt="a")
    assert made.seed_for("video_01A") == made.seed_for("video_01A") != made.seed_for("video_01B")
    assert VideoParams(prompt="a", seed=7).seed_for("video_01A") == 7


def test_cost_follows_the_work() -> None:
    """Cost doubles with steps, pixels and guidance, so estimates from history carry over."""
    one = cost(VideoParams(prompt="a", guidance=1.0))
    assert cost(VideoParams(prompt="a", guidance=3.0)) == 2 * one
    assert cost(VideoParams(prompt="a", guidance=1.0, steps=40)) == 2 * one
    assert cost(VideoParams(prompt="a", guidance=1.0, size="128x64")) == 2 * one


def test_import_needs_no_torch() -> None:
    """The API validates without torch, numpy or Pillow."""
    code = (
        "import sys, daybreak_server.workloads.video.params, daybreak_server.workloads.video.verify,"
        "daybreak_server.workloads.video.parallel, daybreak_server.workloads.video.workload;"
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'av', 'diffusers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
