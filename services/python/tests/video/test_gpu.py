"""On a GPU: the same numbers as stock, steps reported when done, a cancel within one, a group over NCCL.

Marked ``gpu``: skipped without CUDA, and never faked. Needs torch >= 2.11, diffusers and transformers only.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import video_support as support

from daybreak_server.workloads.base import Task
from daybreak_server.workloads.video.pipeline.denoise import Denoiser

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; make gpu runs this"),
]


def denoiser(made: Any, params: Any) -> Denoiser:
    conditions = made._share(params, *made._encode_text(params))
    return Denoiser(made.model, made.ranks, params, conditions, seed=params.seed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["a14b", "ti2v"])
def test_equals_stock_on_gpu(folders: dict[str, Path], kind: str, dtype: str) -> None:
    """The loop makes the stock pipeline's latents on the device, in float32 and bfloat16."""
    made = support.workload({"model": folders[kind], "dtype": dtype}, device="cuda")
    params = support.params(folders[kind])
    loop = denoiser(made, params)
    for _ in loop:
        pass
    pipeline = support.build_pipeline(kind)
    model = made.model
    pipeline.register_modules(
        transformer=model.transformer, transformer_2=model.transformer_2, text_encoder=model.text_encoder
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=params.prompt, height=params.height, width=params.width, num_frames=params.frames,
        num_inference_steps=params.steps, guidance_scale=params.guidance, output_type="latent",
        generator=torch.Generator().manual_seed(params.seed), max_sequence_length=support.TEXT_LENGTH,
    ).frames  # fmt: skip
    assert torch.equal(loop.result(), expected)


def test_steps_are_reported_when_done(folders: dict[str, Path]) -> None:
    """At each yield the stream is idle: progress never runs ahead of the device."""
    made = support.workload({"model": folders["single"]}, device="cuda")
    for _ in denoiser(made, support.params(folders["single"], size="256x256", frames=33)):
        assert torch.cuda.current_stream().query()


def test_cancel_within_one_step(folders: dict[str, Path], tmp_path: Path) -> None:
    """Closing after a step leaves nothing running, takes less than a step, and the next task is right."""
    made = support.workload({"model": folders["single"]}, device="cuda")
    params = support.params(folders["single"], size="256x256", frames=33)
    _, whole = support.run(made, params, tmp_path / "whole")
    running = made.run(Task(id="video_01TEST", params=params), support.Recorder(tmp_path))
    next(running), next(running)
    started = time.perf_counter()
    next(running)
    step = time.perf_counter() - started
    started = time.perf_counter()
    running.close()
    torch.cuda.synchronize()
    assert time.perf_counter() - started < max(step, 0.05)
    assert support.run(made, params, tmp_path / "again")[1].frames == whole.frames


@pytest.mark.parametrize("offload", ["none", "model"])
def test_resume_on_gpu(folders: dict[str, Path], tmp_path: Path, offload: str) -> None:
    """A run resumed from a snapshot on the device gives the same frames, also with offloading."""
    made = support.workload({"model": folders["a14b"], "offload": offload}, device="cuda")
    params = support.params(folders["a14b"])
    steps, whole = support.run(made, params, tmp_path / "whole")
    taken = next(step for step in steps if step.step == 3 and step.snapshot is not None)
    assert taken.snapshot is not None
    _, again = support.run(made, params, tmp_path / "again", resume=taken.snapshot())
    assert (again.resumed, again.frames) == (3, whole.frames)


def test_nccl_group(folders: dict[str, Path]) -> None:
    """A group over every GPU there is runs the plan, and each rank takes part where there are two or more."""
    from verification.benchmarks.gpu.group import measure_group

    world = torch.cuda.device_count()
    found = measure_group("tiny", "64x64", 9, world)
    assert len(found["collectives"]) == world
    assert world == 1 or min(found["collectives"]) > 0
