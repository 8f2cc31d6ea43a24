"""Tests of the video workload on a real GPU: results equal to the stock pipeline's, progress, cancel, resume, and NCCL.

The tests have the mark ``gpu`` and are skipped without CUDA. They need pytest and the packages that
``verification.benchmarks.gpu.preflight`` lists.
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


def denoiser(workload: Any, params: Any) -> Denoiser:
    conditions = workload._share(params, *workload._encode_text(params))
    return Denoiser(workload.model, workload.ranks, params, conditions, seed=params.seed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["a14b", "ti2v"])
def test_latents_on_a_gpu_equal_those_of_the_stock_pipeline(
    folders: dict[str, Path], kind: str, dtype: str
) -> None:
    """The loop computes the same latents as the stock pipeline on the same device, in float32 and bfloat16."""
    workload = support.workload({"model": folders[kind], "dtype": dtype}, device="cuda")
    params = support.params(folders[kind])
    loop = denoiser(workload, params)
    for _ in loop:
        pass
    pipeline = support.build_pipeline(kind)
    model = workload.model
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


def test_a_step_is_reported_after_its_work_on_the_gpu(folders: dict[str, Path]) -> None:
    """The CUDA stream is idle at each yield, so progress never runs ahead of the device."""
    workload = support.workload({"model": folders["single"]}, device="cuda")
    for _ in denoiser(workload, support.params(folders["single"], size="256x256", frames=33)):
        assert torch.cuda.current_stream().query()


def test_a_cancel_takes_less_than_one_step(folders: dict[str, Path], tmp_path: Path) -> None:
    """Closing a run takes less time than one step and leaves no kernel running. The next task gives the right video."""
    workload = support.workload({"model": folders["single"]}, device="cuda")
    params = support.params(folders["single"], size="256x256", frames=33)
    _, whole = support.run(workload, params, tmp_path / "whole")
    running = workload.run(Task(id="video_01TEST", params=params), support.Recorder(tmp_path))
    next(running), next(running)
    started = time.perf_counter()
    next(running)
    step = time.perf_counter() - started
    started = time.perf_counter()
    running.close()
    torch.cuda.synchronize()
    assert time.perf_counter() - started < max(step, 0.05)
    assert support.run(workload, params, tmp_path / "again")[1].frames == whole.frames


@pytest.mark.parametrize("offload", ["none", "model"])
def test_a_resumed_run_on_a_gpu_gives_the_same_frames(
    folders: dict[str, Path], tmp_path: Path, offload: str
) -> None:
    """A run that resumes from a snapshot gives the frames of an uninterrupted run, also with offloading."""
    workload = support.workload({"model": folders["a14b"], "offload": offload}, device="cuda")
    params = support.params(folders["a14b"])
    steps, whole = support.run(workload, params, tmp_path / "whole")
    stopped = next(step for step in steps if step.step == 3 and step.snapshot is not None)
    assert stopped.snapshot is not None
    _, resumed = support.run(workload, params, tmp_path / "resumed", resume=stopped.snapshot())
    assert (resumed.resumed, resumed.frames) == (3, whole.frames)


def test_all_ranks_of_an_nccl_group_take_part(folders: dict[str, Path]) -> None:
    """All GPUs of this machine form one group and run the model. With several GPUs, each rank runs collectives."""
    from verification.benchmarks.gpu.group import measure_group

    world = torch.cuda.device_count()
    measured = measure_group("tiny", "64x64", 9, world)
    assert len(measured["collectives"]) == world
    assert world == 1 or min(measured["collectives"]) > 0
