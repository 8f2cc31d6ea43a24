"""Measures one row of the table: Daybreak's loop or the stock pipeline, on one model with one setting."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daybreak_server.workloads.base import PermanentError, WorkloadError
from daybreak_server.workloads.video.pipeline.decode import decode
from daybreak_server.workloads.video.pipeline.denoise import Conditions, Denoiser
from daybreak_server.workloads.video.pipeline.device_mesh import Ranks
from daybreak_server.workloads.video.pipeline.model import WanModel
from daybreak_server.workloads.video.pipeline.parallel_plan import ParallelPlan
from daybreak_server.workloads.video.spec.options import VideoOptions
from daybreak_server.workloads.video.spec.params import VideoParams
from verification.benchmarks.gpu.shapes import SHAPES, build

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """What to measure."""

    model: str
    size: str
    frames: int
    loop: str = "daybreak"
    """``daybreak`` or ``diffusers``: our loop, or the stock pipeline's ``__call__``."""
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 6
    """How many steps to run. The first one is a warm-up, and its time does not count."""
    guidance: float = 5.0
    note: str = ""

    @property
    def title(self) -> str:
        """The setting in words."""
        what = [f"{key}={value}" for key, value in self.options.items()]
        return ", ".join([*what, *([self.note] if self.note else [])]) or "defaults"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured: seconds and bytes. ``None``: not measured for this row."""

    row: Row
    step_s: float | None = None
    decode_s: float | None = None
    encode_s: float | None = None
    denoise_peak_bytes: int | None = None
    decode_peak_bytes: int | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(row: Row, device: torch.device) -> Result:
    """Run one row. A failure (no memory, a missing kernel) becomes the row's result and does not end the run."""
    try:
        return _measure(row, device)
    except (RuntimeError, ValueError, ImportError, WorkloadError) as exc:
        return Result(row=row, error=f"{type(exc).__name__}: {str(exc).splitlines()[0][:160]}")
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure(row: Row, device: torch.device) -> Result:
    options = VideoOptions.model_validate(row.options)
    model = build(row.model, options, device)
    params = VideoParams.model_construct(
        prompt="", negative_prompt="", size=row.size, frames=row.frames, fps=16, steps=row.steps,
        guidance=row.guidance, guidance_2=None, shift=5.0, seed=SEED, image=None,
    )  # fmt: skip
    conditions = random_conditions(model)
    _reset_peak(device)
    run = stock_steps if row.loop == "diffusers" else our_steps
    with torch.no_grad():
        latents, times = run(model, params, conditions)
    denoise_peak = _peak(device)
    if row.loop == "diffusers":
        return Result(row=row, step_s=statistics.median(times[1:]), denoise_peak_bytes=denoise_peak)
    model.unload()
    _reset_peak(device)
    started = time.perf_counter()
    with model.on_device(model.vae) as vae:
        frames = np.concatenate(list(decode(vae, latents, tiled=options.vae_tiling)))
    decode_s = time.perf_counter() - started
    return Result(
        row=row,
        step_s=statistics.median(times[1:]),
        decode_s=decode_s,
        encode_s=_encode(frames, params, options),
        denoise_peak_bytes=denoise_peak,
        decode_peak_bytes=_peak(device),
    )


def random_conditions(model: WanModel) -> Conditions:
    """Random text encodings with 512 tokens, the length to which real prompts are padded."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, model.text_length, model.text_width)
    prompt, negative = (
        torch.randn(shape, generator=generator).to(model.device, model.transformer.dtype) for _ in range(2)
    )
    return Conditions(prompt=prompt, negative=negative)


Steps = Callable[[WanModel, VideoParams, Conditions], tuple[torch.Tensor, list[float]]]


def our_steps(
    model: WanModel, params: VideoParams, conditions: Conditions
) -> tuple[torch.Tensor, list[float]]:
    """The final latents and the seconds of each step of our loop, which waits for the device before it yields."""
    ranks = Ranks(ParallelPlan(), model.device)
    denoiser = Denoiser(model, ranks, params, conditions, seed=SEED)
    times, last = [], time.perf_counter()
    for _ in denoiser:
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return denoiser.result(), times


def stock_steps(
    model: WanModel, params: VideoParams, conditions: Conditions
) -> tuple[torch.Tensor, list[float]]:
    """The final latents and the seconds of each step of ``WanPipeline``, whose step callback waits for the device."""
    from diffusers import UniPCMultistepScheduler, WanPipeline

    config = {**model.scheduler_config, "flow_shift": params.shift}
    pipeline: Any = WanPipeline(
        tokenizer=None, text_encoder=None, vae=model.vae, transformer=model.transformer,
        transformer_2=model.transformer_2, boundary_ratio=model.boundary_ratio,
        expand_timesteps=model.info.expand_timesteps, scheduler=UniPCMultistepScheduler.from_config(config),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    times: list[float] = []
    last = time.perf_counter()

    def stamp(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal last
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        times.append(now - last)
        last = now
        return tensors

    latents = pipeline(
        prompt_embeds=conditions.prompt, negative_prompt_embeds=conditions.negative, height=params.height,
        width=params.width, num_frames=params.frames, num_inference_steps=params.steps,
        guidance_scale=params.guidance, generator=torch.Generator().manual_seed(SEED), output_type="latent",
        callback_on_step_end=stamp,
    ).frames  # fmt: skip
    return latents, times


def _encode(frames: Any, params: VideoParams, options: VideoOptions) -> float | None:
    """Seconds to write the MP4; ``None`` if PyAV, which a GPU machine may lack, is not installed."""
    from daybreak_server.workloads.video.pipeline.encode import Mp4Writer

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        try:
            with Mp4Writer(
                Path(folder) / "video.mp4", fps=params.fps, width=params.width, height=params.height,
                crf=options.crf, preset=options.preset, threads=options.encoder_threads,
            ) as writer:  # fmt: skip
                writer.write(frames)
        except PermanentError:
            return None
        return time.perf_counter() - started


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


__all__ = ["SHAPES", "Result", "Row", "measure"]
