"""Helpers for video tests: tiny random Wan pipelines, a recording context, and groups of spawned gloo ranks."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from daybreak_server.workloads.base import Group, Step, Task
from daybreak_server.workloads.video.spec.params import SPEC, VideoParams
from testkit import forkserver

TEXT_LENGTH = 24
SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

PRELOAD = (
    "torch.distributed.device_mesh",
    "diffusers.models.transformers.transformer_wan",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.schedulers.scheduling_unipc_multistep",
    "transformers.models.umt5.modeling_umt5",
)


def save_pipeline(folder: Path, kind: str) -> Path:
    """Save a random pipeline of this kind as a diffusers folder. Returns the folder."""
    build_pipeline(kind).save_pretrained(folder)
    return folder


def build_pipeline(kind: str) -> Any:
    """Build a pipeline with random weights from a fixed seed.

    The kinds: ``a14b`` has two experts, ``ti2v`` has a timestep for each token, ``single`` has one expert, and
    ``block`` has the codec of the tiny model.
    """
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from verification.tiny_wan.tokenizer import byte_tokenizer

    ti2v = kind == "ti2v"
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = TEXT_LENGTH
    torch.manual_seed(0)
    text = UMT5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    # TI2V-5B's VAE packs 2 x 2 pixels into channels before it convolves, so each latent covers 16 x 16 pixels.
    shape: dict[str, Any] = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1]}
    shape |= {"num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    if ti2v:
        shape |= {"patch_size": 2, "in_channels": 12, "out_channels": 12, "is_residual": False}
        shape |= {"scale_factor_spatial": 16}

    def transformer(seed: int) -> Any:
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=12, in_channels=16,
            out_channels=16, text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True,
            qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        )  # fmt: skip

    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=_block_codec() if kind == "block" else AutoencoderKLWan(**shape).eval(),
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
        transformer=transformer(1).eval(),
        transformer_2=transformer(2).eval() if kind == "a14b" else None,
        boundary_ratio=0.875 if kind == "a14b" else None,
        expand_timesteps=ti2v,
    )


def _block_codec() -> Any:
    import torch

    from daybreak_server.workloads.video.pipeline.codec import BlockCodec

    codec = BlockCodec(z_dim=16, latents_mean=[0.0] * 16, latents_std=[1.0] * 16)
    codec.basis.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    return codec.eval()


def params(folder: Path, **fields: Any) -> VideoParams:
    """Validated parameters of a small video for a model. ``fields`` replace defaults or add to them."""
    small = {"prompt": "a red circle moving left", "size": "32x32", "frames": 9, "steps": 6, "seed": 3}
    return SPEC.validate({**small, **fields}, {"model": folder})


@dataclass
class Recorder:
    """A task context that records the log lines, previews and artifacts of a run."""

    workdir: Path
    resume: bytes | None = None
    resumed: int | None = None
    lines: list[str] = field(default_factory=list)
    previews: list[tuple[int, bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    frames: str = ""
    """SHA-256 of the decoded frames, before the MP4 encoder."""

    def resumed_from(self, step: int) -> None:
        self.resumed = step

    def log(self, message: str, *, level: str = "info") -> None:
        self.lines.append(f"{level}: {message}")

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        self.previews.append((step, image))

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        self.files[name or path.name] = path.read_bytes()


def workload(options: Mapping[str, Any], **group: Any) -> Any:
    """Load a workload as the only rank of its group, unless ``group`` sets ``rank`` and ``size``."""
    from daybreak_server.workloads.video.pipeline.workload import VideoWorkload

    loaded = VideoWorkload()
    loaded.load(Group(options={"warm_up": False, "preview_every": 0, "threads": 1, **options}, **group))
    return loaded


def run(loaded: Any, video: VideoParams, workdir: Path, **context: Any) -> tuple[list[Step], Recorder]:
    """Run one task to its end. Returns its steps, and a recorder of everything that the task produced."""
    workdir.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(workdir, **context)
    decode, digest = loaded._decode, hashlib.sha256()

    def decode_and_hash(denoiser: Any) -> Iterator[Any]:
        for frames in decode(denoiser):
            digest.update(frames.tobytes())
            yield frames

    loaded._decode = decode_and_hash
    try:
        steps = list(loaded.run(Task(id="video_01TEST", params=video), recorder))
    finally:
        del loaded._decode
    recorder.frames = digest.hexdigest()
    return steps, recorder


@dataclass(frozen=True)
class Case:
    """A video to make on a group of ``world`` ranks."""

    name: str
    world: int
    options: dict[str, Any]
    params: dict[str, Any]
    plan: str
    """Words that the explanation of the plan must contain, so that the case tests the plan that its name promises."""


def _rank(rank: int, cases: list[Case], folder: Path, replies: Queue[Any]) -> None:
    import torch.distributed as dist

    from daybreak_server.workloads.video.pipeline.device_mesh import CollectiveCounter

    try:
        for case in cases:
            if rank >= case.world:
                continue
            store = dist.FileStore(str(folder / f"store-{case.name}"), case.world)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=case.world)
            loaded = workload(case.options, rank=rank, size=case.world, local_rank=rank)
            with CollectiveCounter() as counter:
                loaded.warm_up()
                video = params(Path(case.options["model"]), **case.params)
                steps, recorder = run(loaded, video, folder / f"{case.name}-{rank}")
            outline = [(step.phase, step.fraction, step.step, step.steps) for step in steps]
            replies.put(
                (case.name, rank, loaded.ranks.plan, counter.total, outline, recorder.files, recorder.frames)
            )
            dist.destroy_process_group()
    except BaseException:
        replies.put(("error", rank, traceback.format_exc(), 0, [], {}, ""))


@contextlib.contextmanager
def spawned(cases: list[Case], folder: Path, timeout_s: float = 240) -> Iterator[dict[str, list[Any]]]:
    """Run the cases, and yield the replies of all ranks by case.

    All cases share the same processes, because a rank takes seconds to start.
    """
    # Like `spawn`, but only the fork server imports torch and diffusers, which takes 15 s of CPU.
    context = forkserver.context(*PRELOAD)
    replies: Queue[Any] = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, cases, folder, replies))
        for rank in range(max(case.world for case in cases))
    ]
    for process in ranks:
        process.start()
    replies_by_case: dict[str, list[Any]] = {case.name: [] for case in cases}
    try:
        for _ in range(sum(case.world for case in cases)):
            name, *reply = replies.get(timeout=timeout_s)
            if name == "error":
                raise AssertionError(f"rank {reply[0]} failed:\n{reply[1]}")
            replies_by_case[name].append(reply)
        yield replies_by_case
    except queue.Empty:
        counts = {name: len(replies) for name, replies in replies_by_case.items()}
        raise AssertionError(f"ranks did not answer within {timeout_s} s; answers so far: {counts}") from None
    finally:
        for process in ranks:
            process.join(60)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        replies.close()
        replies.join_thread()
