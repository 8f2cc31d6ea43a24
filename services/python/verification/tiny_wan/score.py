"""Sample the tiny model for every subject, and count the correct videos."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from daybreak_server.workloads.video.pipeline.codec import BlockCodec
from verification.tiny_wan.check import Reading, read
from verification.tiny_wan.shapes import FRAMES, SIZE, SUBJECTS, Frames, Subject
from verification.tiny_wan.tokenizer import MAX_LENGTH

STEPS: Final = 20
GUIDANCE: Final = 3.0
BATCH: Final = 10

Part = TypeVar("Part", WanTransformer3DModel, BlockCodec)


@dataclass(frozen=True)
class TinyModel:
    """The five parts of the model folder."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: UMT5EncoderModel
    transformer: WanTransformer3DModel
    codec: BlockCodec
    scheduler: UniPCMultistepScheduler

    @classmethod
    def load(cls, folder: Path) -> TinyModel:
        """Read a model folder; weights are widened to float32."""
        return cls(
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
            _load(WanTransformer3DModel, folder / "transformer"),
            _load(BlockCodec, folder / "vae"),
            UniPCMultistepScheduler.from_pretrained(folder / "scheduler"),
        )

    def save(self, folder: Path) -> None:
        """Write the folder in the layout of diffusers, with the weights rounded to bfloat16."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        for name, part in (
            ("text_encoder", self.text_encoder),
            ("transformer", self.transformer),
            ("vae", self.codec),
        ):
            copy.deepcopy(part).to(torch.bfloat16).save_pretrained(folder / name)
        index = {
            "_class_name": "WanPipeline",
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["daybreak_server.workloads.video.pipeline.codec", "BlockCodec"],
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    def embed_ids(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Text states [B, L, text_dim], zero where there is padding, as Wan's pipeline makes them."""
        states: Tensor = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None]

    def embed(self, prompts: list[str]) -> Tensor:
        """Text states of prompts."""
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
        )
        return self.embed_ids(tokens.input_ids, tokens.attention_mask)


def _load(kind: type[Part], folder: Path) -> Part:
    """A diffusers model in float32; `from_pretrained` of a Wan transformer would need `accelerate`."""
    part: Part = kind.from_config(kind.load_config(folder))
    part.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    part.float().eval()
    return part


def noise(model: TinyModel, seeds: list[int]) -> Tensor:
    """The start latents of each seed, drawn one by one on the CPU as diffusers' `randn_tensor` does."""
    config = model.codec.config
    steps = (FRAMES - 1) // config.scale_factor_temporal + 1
    side = SIZE // config.scale_factor_spatial
    shape = (1, config.z_dim, steps, side, side)
    return torch.cat([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds])


@torch.no_grad()
def sample(
    model: TinyModel, prompts: list[str], seeds: list[int], *, guidance: float = GUIDANCE
) -> list[Frames]:
    """Videos [T, H, W, 3] in 0..1 for prompts, made with a minimal denoising loop."""
    scheduler = UniPCMultistepScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(STEPS)
    latents, texts = noise(model, seeds), model.embed([*prompts, *([""] * len(prompts))])
    for t in scheduler.timesteps:
        both = model.transformer(
            latents.repeat(2, 1, 1, 1, 1), t.expand(len(texts)), texts, return_dict=False
        )[0]
        follow, ignore = both.chunk(2)
        latents = scheduler.step(ignore + guidance * (follow - ignore), t, latents, return_dict=False)[0]
    mean = torch.tensor(model.codec.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(model.codec.config.latents_std).view(1, -1, 1, 1, 1)
    video = model.codec.decode(latents * std + mean).sample
    frames = ((video + 1) / 2).permute(0, 2, 3, 4, 1).numpy().astype(np.float32)
    return list(frames)


@dataclass(frozen=True)
class Score:
    """The subject that each prompt describes, and what the check read from its video."""

    wanted: tuple[Subject, ...]
    got: tuple[Reading, ...]

    def right(self, trait: str) -> int:
        """How many videos match the prompt in a trait: `colour`, `shape` or `direction`."""
        return sum(getattr(a, trait) == getattr(g, trait) for a, g in zip(self.wanted, self.got, strict=True))

    def misses(self) -> list[str]:
        """One line for each video that is wrong in any trait."""
        return [
            f"{a.caption}: {g}"
            for a, g in zip(self.wanted, self.got, strict=True)
            if (a.colour, a.shape, a.direction) != (g.colour, g.shape, g.direction)
        ]


def score(model: TinyModel, *, every: int = 1, guidance: float = GUIDANCE) -> Score:
    """Score each ``every``-th subject. A subject's index in ``SUBJECTS`` is also its seed."""
    seeds = list(range(0, len(SUBJECTS), every))
    got: list[Reading] = []
    for first in range(0, len(seeds), BATCH):
        batch = seeds[first : first + BATCH]
        prompts = [SUBJECTS[seed].caption for seed in batch]
        got += [read(video) for video in sample(model, prompts, batch, guidance=guidance)]
    return Score(tuple(SUBJECTS[s] for s in seeds), tuple(got))


def curve_line(step: int, seconds: float, result: Score) -> str:
    """One line of a learning curve."""
    counts = ", ".join(f"{trait} {result.right(trait)}" for trait in ("colour", "direction", "shape"))
    return f"SCORE step {step} at {seconds / 60:.1f} min: of {len(result.wanted)} right: {counts}"
