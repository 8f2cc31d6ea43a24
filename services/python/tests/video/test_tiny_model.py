"""Tests of the tiny Wan model in the package: its folder, its codec, its prompts, and the check that scores it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from daybreak_server.workloads.video.tiny import MODEL_DIR
from verification.tiny_wan.check import read
from verification.tiny_wan.shapes import (
    BACKGROUND,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SUBJECTS,
    Subject,
    random_clip,
)

if TYPE_CHECKING:
    from verification.tiny_wan.score import TinyModel

TRAITS = ("colour", "shape", "direction")


def config(part: str) -> dict[str, object]:
    value: dict[str, object] = json.loads((MODEL_DIR / part / "config.json").read_text())
    return value


def read_traits(video: np.ndarray) -> Subject:
    reading = read(video)
    return Subject(str(reading.colour), str(reading.shape), str(reading.direction))


@pytest.fixture(scope="module")
def diffusers() -> None:
    """Skips tests if diffusers is missing. It is imported late, because the import takes seconds in each process."""
    pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def model(diffusers: None) -> TinyModel:
    from verification.tiny_wan.score import TinyModel

    return TinyModel.load(MODEL_DIR)


def test_the_model_folder_has_at_most_8_mb() -> None:
    """A larger model would not fit into the package."""
    assert sum(path.stat().st_size for path in MODEL_DIR.rglob("*") if path.is_file()) <= 8_000_000


def test_four_ranks_can_share_the_heads() -> None:
    """Ulysses can split the attention heads evenly among 2 or 4 ranks."""
    heads = config("transformer")["num_attention_heads"]
    assert isinstance(heads, int)
    assert heads % 4 == 0


def test_the_model_folder_names_the_classes_of_its_parts(diffusers: None) -> None:
    """A loader that follows ``_class_name`` finds the Wan transformer and Daybreak's codec."""
    from daybreak_server.workloads.video.pipeline.codec import BlockCodec

    assert config("transformer")["_class_name"] == "WanTransformer3DModel"
    assert config("vae")["_class_name"] == "BlockCodec"
    index = json.loads((MODEL_DIR / "model_index.json").read_text())
    assert index["vae"] == [BlockCodec.__module__, BlockCodec.__name__]


def test_the_path_of_the_model_folder_is_known_without_torch() -> None:
    """A gateway without the video extra needs the path too."""
    program = "import sys, daybreak_server.workloads.video.tiny; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_tokenizer_in_the_folder_equals_the_one_in_the_code(model: TinyModel) -> None:
    """The folder's tokenizer gives the same ids, ignores case and outer spaces, and pads to the same length."""
    from verification.tiny_wan.tokenizer import MAX_LENGTH, byte_tokenizer

    expected = byte_tokenizer()("a red circle moving left").input_ids
    assert model.tokenizer("  A RED circle moving Left ").input_ids == expected
    assert len(expected) == len("a red circle moving left") + 1
    assert model.tokenizer.model_max_length == MAX_LENGTH


def test_the_check_recognises_every_rendered_clip() -> None:
    """The check reads the subject of each clip correctly, from floats and from bytes."""
    rng = np.random.default_rng(1)
    for subject in SUBJECTS:
        clip = random_clip(subject, rng)
        assert read_traits(clip) == subject
        assert read_traits((clip * 255).round().astype(np.uint8)) == subject


@pytest.mark.parametrize("trait", TRAITS)
def test_the_check_recognises_a_clip_with_one_wrong_trait(trait: str) -> None:
    """A clip with another colour, shape or direction is read as different in that trait only."""
    rng = np.random.default_rng(2)
    values = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}[trait]
    for subject in SUBJECTS:
        other = values[(values.index(getattr(subject, trait)) + 1) % len(values)]
        wrong = dataclasses.replace(subject, **{trait: other})
        assert read_traits(random_clip(wrong, rng)) == wrong != subject


def test_the_check_finds_no_moving_shape_in_noise_or_a_still_scene() -> None:
    """An empty scene has no colour, noise has no shape, and a subject at rest has no direction."""
    rng = np.random.default_rng(3)
    empty = np.full((17, 64, 64, 3), BACKGROUND, np.float32)
    assert read(empty).colour is None
    assert read(rng.random(empty.shape, np.float32)).shape is None
    still = random_clip(SUBJECTS[0], rng)[:1].repeat(17, 0)
    assert read(still).direction is None


def test_the_codec_keeps_colour_shape_and_direction(model: TinyModel) -> None:
    """Encoding and decoding lose detail (PSNR about 27 dB) but no trait. A preview equals the decoded frame."""
    rng = np.random.default_rng(4)
    clips = np.stack([random_clip(subject, rng) for subject in SUBJECTS[::7]])
    video = torch.from_numpy(clips).permute(0, 4, 1, 2, 3) * 2 - 1
    latents = model.codec.encode(video).latent_dist.sample()
    decoded = model.codec.decode(latents).sample
    assert decoded.shape == video.shape
    assert float((decoded - video).square().mean()) < 4 * 10**-2.6
    for subject, frames in zip(SUBJECTS[::7], decoded.permute(0, 2, 3, 4, 1).numpy(), strict=True):
        assert read_traits((frames + 1) / 2) == subject
    torch.testing.assert_close(model.codec.decode_frame(latents[:, :, 2]), decoded[:, :, 8])


def test_the_codec_refuses_a_frame_count_that_is_not_4n_plus_1(model: TinyModel) -> None:
    """The error says which frame counts are possible."""
    with pytest.raises(ValueError, match="4n"):
        model.codec.encode(torch.zeros(1, 3, 16, 64, 64))


@pytest.mark.heavy
def test_the_model_follows_its_prompts(model: TinyModel) -> None:
    """Of all 60 videos, at least 57 have the right colour, 57 the right direction and 48 the right shape."""
    from verification.tiny_wan.score import score

    result = score(model)
    assert result.right("colour") >= 57, result.misses()
    assert result.right("direction") >= 57, result.misses()
    assert result.right("shape") >= 48, result.misses()


@pytest.mark.heavy
def test_the_model_understands_paraphrases(model: TinyModel) -> None:
    """At least 7 of 10 videos match their prompts if the prompts are paraphrases in capital letters."""
    from verification.tiny_wan.score import sample

    subjects = SUBJECTS[::6]
    wordings = len(SUBJECTS[0].paraphrases)
    prompts = [subject.paraphrases[number % wordings].upper() for number, subject in enumerate(subjects)]
    videos = sample(model, prompts, list(range(len(prompts))))
    right = [read_traits(video) == subject for video, subject in zip(videos, subjects, strict=True)]
    assert sum(right) >= 7
