"""The denoise loop of Wan 2.2 as a generator. It yields once per step, and computes what ``WanPipeline`` computes.

The loop is UniPC (Zhao et al. 2023) over flow matching with classifier-free guidance (Ho & Salimans 2022). Wan 2.2 has
two families. T2V-A14B has two transformers (*experts*): one for the timesteps at or above a boundary, and one for those
below it. TI2V-5B has one transformer, in which each token has its own timestep, so that a video may continue from a
first image. The tiny model of the package has one transformer and one timestep for all tokens.

``WanPipeline.__call__`` cannot be used. If it is interrupted, it still decodes the unfinished latents. It cannot
resume, and it cannot share the two passes of guidance among ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from daybreak_server.workloads.video.pipeline.device_mesh import Ranks
from daybreak_server.workloads.video.pipeline.model import WanModel
from daybreak_server.workloads.video.pipeline.snapshot import Snapshot
from daybreak_server.workloads.video.spec.params import VideoParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The inputs that steer the denoise loop. They are the same on every rank."""

    prompt: Tensor
    """[1, text_length, text_width], in the transformer's dtype."""
    negative: Tensor | None = None
    """The negative prompt, for the unguided pass; ``None`` if guidance is 1 or less."""
    first_frame: Tensor | None = None
    """[1, z, 1, height, width], float32: the encoded first image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoised:
    """The state of the loop after a step."""

    snapshot: Snapshot
    estimate: Tensor
    """The model's current estimate of the finished latents, [1, z, frames, height, width], for previews."""


def fingerprint(model: WanModel, params: VideoParams, seed: int) -> str:
    """A digest of the model, its dtype, the seed and the parameters. A snapshot fits only runs with the same digest."""
    # The frame rate affects only the file, and the seed of the run is added below.
    values = params.model_dump(mode="json", exclude={"fps", "seed"})
    if params.image is not None:
        # "cover" names the method that prepares the picture. A new method needs a new name, because older snapshots do
        # not fit it.
        values["image"] = ["cover", params.image]
    text = json.dumps([model.fingerprint, seed, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def latent_shape(model: WanModel, params: VideoParams) -> tuple[int, int, int, int, int]:
    """[batch, channels, frames, height, width] of a video's latents."""
    info = model.info
    return (
        1,
        int(model.transformer.config.in_channels),
        (params.frames - 1) // info.temporal + 1,
        params.height // info.spatial,
        params.width // info.spatial,
    )


@torch.no_grad()
def initial(model: WanModel, params: VideoParams, seed: int) -> tuple[Tensor, Tensor]:
    """Make the noise for a seed. Returns the noise, and the generator's state afterwards.

    The noise always comes from the CPU, so that a seed gives the same noise on every machine, as in the stock pipeline
    with a CPU generator.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent_shape(model, params), generator=generator, dtype=torch.float32)
    return noise.to(model.device), generator.get_state()


class Denoiser:
    """Runs the remaining steps of one task."""

    def __init__(
        self,
        model: WanModel,
        ranks: Ranks,
        params: VideoParams,
        conditions: Conditions,
        *,
        seed: int,
        resume: Snapshot | None = None,
    ) -> None:
        from diffusers import UniPCMultistepScheduler

        self.model, self.ranks, self.params, self.conditions = model, ranks, params, conditions
        config = dict(model.scheduler_config)
        if params.shift is not None:
            config["flow_shift"] = params.shift
        self.scheduler: Any = UniPCMultistepScheduler.from_config(config)
        self.scheduler.set_timesteps(params.steps, device=model.device)
        self.scheduler.set_begin_index(0)
        # Read once, because comparing a timestep on the device would stall the GPU at every step.
        self.timesteps: list[int] = self.scheduler.timesteps.tolist()
        self.step = 0
        if resume is None:
            self.latents, self.rng = initial(model, params, seed)
        else:
            self._restore(resume)
        self._mask = self._first_frame_mask()

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return len(self.timesteps)

    def __iter__(self) -> Iterator[Denoised]:
        """Do the remaining steps, and yield after each, once its work has finished on the device."""
        while self.step < self.steps:
            self._advance()
            if self.model.device.type == "cuda":
                # Kernels run asynchronously; without this wait, progress would run ahead of the work.
                done: Any = torch.Event(device="cuda")
                done.record()
                done.synchronize()
            yield Denoised(snapshot=self.snapshot(), estimate=self.scheduler.model_outputs[-1])

    def result(self) -> Tensor:
        """The latents after the last step, with the encoded first image in place if there is one."""
        return self._with_first_frame(self.latents)

    @torch.no_grad()
    def _advance(self) -> None:
        timestep = self.scheduler.timesteps[self.step]
        model, guidance = self._expert(self.timesteps[self.step])
        with self.model.on_device(model):
            prediction = self._predict(model, timestep, guidance)
        self.latents = self.scheduler.step(prediction, timestep, self.latents, return_dict=False)[0]
        self.step += 1

    def _expert(self, timestep: int) -> tuple[Any, float]:
        """The expert for a timestep, and the guidance to use with it."""
        params, ratio = self.params, self.model.boundary_ratio
        if ratio is None or timestep >= ratio * self.scheduler.config.num_train_timesteps:
            return self.model.transformer, params.guidance
        return self.model.transformer_2, params.guidance if params.guidance_2 is None else params.guidance_2

    def _predict(self, model: Any, timestep: Tensor, guidance: float) -> Tensor:
        """The model's prediction, guided: [1, z, frames, height, width]."""
        latents = self._with_first_frame(self.latents).to(model.dtype)
        steps = self._timestep(timestep)

        def run(text: Tensor) -> Tensor:
            result: Tensor = model(
                hidden_states=latents, timestep=steps, encoder_hidden_states=text, return_dict=False
            )[0]
            return result

        prompt, negative = self.conditions.prompt, self.conditions.negative
        if negative is None:
            return run(prompt)
        guided = self.ranks.guided
        if guided is None:
            conditional, unconditional = run(prompt), run(negative)
        else:
            conditional, unconditional = self.ranks.both_passes(run(prompt if guided else negative))
        return unconditional + guidance * (conditional - unconditional)

    def _timestep(self, timestep: Tensor) -> Tensor:
        """One timestep, of shape [1]; or one per token, of shape [1, tokens], with 0 in the frame of a first image."""
        if not self.model.info.expand_timesteps:
            return timestep.expand(1)
        expanded: Tensor = (self._mask[0][0][:, ::2, ::2] * timestep).flatten().unsqueeze(0)
        return expanded

    def _first_frame_mask(self) -> Tensor:
        """A mask [1, 1, frames, height, width] with 0 in the frame of a first image and 1 elsewhere."""
        mask = torch.ones(1, 1, *self.latents.shape[2:], dtype=torch.float32, device=self.model.device)
        if self.conditions.first_frame is not None:
            mask[:, :, 0] = 0
        return mask

    def _with_first_frame(self, latents: Tensor) -> Tensor:
        first_frame = self.conditions.first_frame
        return latents if first_frame is None else (1 - self._mask) * first_frame + self._mask * latents

    def snapshot(self) -> Snapshot:
        """The current state. Its tensors are not copied. They never change, because each step makes new ones."""
        scheduler = self.scheduler
        return Snapshot(
            step=self.step,
            latents=self.latents,
            model_outputs=tuple(scheduler.model_outputs),
            timesteps=tuple(
                self.timesteps[self.step + i] if self.step + i >= 0 else None
                for i in range(-len(scheduler.timestep_list), 0)
            ),
            last_sample=scheduler.last_sample,
            lower_order_nums=scheduler.lower_order_nums,
            this_order=scheduler.this_order,
            rng=self.rng,
        )

    def _restore(self, snapshot: Snapshot) -> None:
        scheduler = self.scheduler
        self.step, self.latents, self.rng = snapshot.step, snapshot.latents, snapshot.rng
        scheduler.model_outputs = list(snapshot.model_outputs)
        scheduler.timestep_list = [
            None if t is None else torch.tensor(t, device=self.model.device) for t in snapshot.timesteps
        ]
        scheduler.last_sample = snapshot.last_sample
        scheduler.lower_order_nums = snapshot.lower_order_nums
        scheduler.this_order = snapshot.this_order
        scheduler._step_index = snapshot.step
