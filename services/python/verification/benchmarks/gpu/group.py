"""Measures a group of ranks, each with a GPU of this machine, with the plan that Daybreak chooses for the group."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from daybreak_server.workloads.video.pipeline.denoise import Denoiser
from daybreak_server.workloads.video.pipeline.device_mesh import CollectiveCounter, Ranks
from daybreak_server.workloads.video.pipeline.parallel_plan import plan
from daybreak_server.workloads.video.spec.options import VideoOptions
from daybreak_server.workloads.video.spec.params import VideoParams
from verification.benchmarks.gpu.measure import SEED, random_conditions
from verification.benchmarks.gpu.shapes import SHAPES, build


def measure_group(
    model: str, size: str, frames: int, world: int, device: str = "cuda", steps: int = 4
) -> Any:
    """The seconds per step, the most memory that a rank used, the plan, and the numbers of collectives of the ranks.

    :raises RuntimeError: with the error of a rank that failed.
    """
    context = multiprocessing.get_context("spawn")
    replies: Queue[Any] = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, str(Path(folder) / "store"), model, size, frames, device, steps, replies)
        ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world)]
        for process in ranks:
            process.start()
        try:
            reports = [replies.get(timeout=900) for _ in ranks]
        finally:
            for process in ranks:
                process.join(30)
                if process.is_alive():
                    process.kill()
    for report in reports:
        if "error" in report:
            raise RuntimeError(report["error"])
    times = max((report["times"] for report in reports), key=sum)
    return {
        "model": model, "size": size, "frames": frames, "ranks": world, "plan": reports[0]["plan"],
        "step_s": statistics.median(times[1:]), "collectives": sorted(report["collectives"] for report in reports),
        "peak_bytes": max(report["peak"] for report in reports),
    }  # fmt: skip


def _rank(
    rank: int,
    world: int,
    store: str,
    model: str,
    size: str,
    frames: int,
    device: str,
    steps: int,
    out: Queue[Any],
) -> None:
    import time

    try:
        rank_device = torch.device(device, rank) if device == "cuda" else torch.device(device)
        if rank_device.type == "cuda":
            torch.cuda.set_device(rank_device)
        backend = "nccl" if rank_device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=FileStore(store, world), rank=rank, world_size=world)
        wan_model = build(model, VideoOptions(), rank_device, vae=False)
        heads = int(wan_model.transformer.config.num_attention_heads)
        ranks = Ranks(plan(world, heads, True, rank_device.type), rank_device)
        for transformer in wan_model.transformers:
            ranks.split(transformer, per_token_timesteps=wan_model.info.expand_timesteps)
        params = VideoParams.model_construct(
            prompt="", negative_prompt="", size=size, frames=frames, fps=16, steps=steps, guidance=5.0,
            guidance_2=None, shift=5.0, seed=SEED, image=None,
        )  # fmt: skip
        info = SHAPES[model].info
        ranks.prepare(
            params.width
            // info.multiple
            * (params.height // info.multiple)
            * ((frames - 1) // info.temporal + 1)
        )
        times, last = [], time.perf_counter()
        with CollectiveCounter() as counter:
            for _ in Denoiser(wan_model, ranks, params, random_conditions(wan_model), seed=SEED):
                now = time.perf_counter()
                times.append(now - last)
                last = now
        peak = torch.cuda.max_memory_allocated() if rank_device.type == "cuda" else 0
        out.put(
            {"plan": ranks.plan.explain(heads), "times": times, "collectives": counter.total, "peak": peak}
        )
        dist.destroy_process_group()
    except BaseException as exc:
        out.put({"error": f"rank {rank}: {type(exc).__name__}: {exc}"})
