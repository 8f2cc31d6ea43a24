"""The video workload: prompt to MP4, with the same code on one CPU and on a group of GPUs.

A task goes through four phases: ``encode_prompt``, ``denoise``, ``decode`` and ``encode``. All ranks share the denoise
loop. Only the leader has the text encoder, the VAE and the MP4 encoder. It broadcasts its encodings to the other ranks.

Rules that keep the ranks of a group together when you change ``run``:

* Every rank yields the same number of times. Work that only the leader does (text encoder, VAE, MP4 encoder, previews)
  is followed by a yield before the next collective, because the other ranks learn of the leader's failure at a yield.
* Every rank checks the input before the first collective.
* ``step`` counts denoise steps in every phase, so a checkpoint that is taken while decoding has the number of the last
  denoise step.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from daybreak_server.workloads.base import Context, Group, PermanentError, Step, Task
from daybreak_server.workloads.video.pipeline.determinism import (
    CPU_ENVIRONMENT,
    rows_are_independent,
    threads_for,
)
from daybreak_server.workloads.video.spec import image_file
from daybreak_server.workloads.video.spec.limits import model_limits
from daybreak_server.workloads.video.spec.options import VideoOptions
from daybreak_server.workloads.video.spec.params import VideoParams

if TYPE_CHECKING:
    from torch import Tensor

    from daybreak_server.workloads.video.pipeline.decode import Frames
    from daybreak_server.workloads.video.pipeline.denoise import Conditions, Denoiser
    from daybreak_server.workloads.video.pipeline.device_mesh import Ranks
    from daybreak_server.workloads.video.pipeline.encode import Mp4Writer
    from daybreak_server.workloads.video.pipeline.model import WanModel
    from daybreak_server.workloads.video.pipeline.snapshot import Snapshot

log = logging.getLogger(__name__)

PHASES: Final = {"encode_prompt": 0.02, "denoise": 0.85, "decode": 0.10, "encode": 0.03}
"""Phase → its approximate share of a task's time. With these shares, a task's fraction rises about evenly."""

FRAMES_PER_YIELD: Final = 16
"""Frames to encode between two yields."""


class VideoWorkload:
    """The work of one rank."""

    name = "video"
    Params = VideoParams

    group: Group
    options: VideoOptions
    model: WanModel
    ranks: Ranks

    def load(self, group: Group) -> None:
        """Load the model, and split it over the ranks as ``parallel_plan`` decides.

        :raises PermanentError: if an option is invalid, or no plan fits.
        :raises ModelError: if the model in the folder or an option cannot be used.
        """
        try:
            self.options = VideoOptions.model_validate(dict(group.options))
        except ValidationError as exc:
            raise PermanentError(f"the pool's options are wrong: {exc}", code="bad_options") from exc
        import torch

        from daybreak_server.workloads.video.pipeline import device_mesh, parallel_plan
        from daybreak_server.workloads.video.pipeline import model as models
        from daybreak_server.workloads.video.spec import model_folder

        self.group, device = group, _device(group)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        else:
            self._configure_cpu()
        try:
            info = model_folder.read(self.options.folder)
        except model_folder.FolderError as exc:
            raise models.ModelError(str(exc)) from exc
        self.limits = model_limits(info, self.options)
        plan = parallel_plan.choose(
            self.options.parallel, world=group.size, heads=info.heads,
            guidance=self.limits.defaults["guidance"] > 1, device=device.type,
        )  # fmt: skip
        if self.options.offload == "group" and plan.sequence > 1:
            raise PermanentError(
                "The option `offload: group` does not work if ranks share a sequence; use `offload: model`.",
                code="bad_options",
            )
        if group.leader:
            log.info("plan: %s", plan.explain(info.heads))
        self.ranks = device_mesh.Ranks(plan, device)
        self.model = models.load(self.options, device, leader=group.leader)
        for transformer in self.model.transformers:
            self.ranks.split(transformer, per_token_timesteps=info.expand_timesteps)

    def _configure_cpu(self) -> None:
        import torch

        for name, value in CPU_ENVIRONMENT.items():
            # Only environment variables set MKL's reproducibility mode. MKL reads them once, so the program that starts
            # ranks should set them too.
            os.environ.setdefault(name, value)  # noqa: TID251 - torch reads it
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(self.options.threads or threads_for(cores, self.group.size))
        if self.group.size > 1 and self.group.leader and not rows_are_independent():
            log.warning(
                "matrix products on this machine depend on how rows are split: videos of a group differ in "
                "the last bits from those of one process. Start ranks with %s.",
                " ".join(f"{name}={value}" for name, value in CPU_ENVIRONMENT.items()),
            )

    def warm_up(self) -> None:
        """Make one step of a default video; on the leader, also a preview, a decode and one MP4 frame.

        This chooses kernels, allocates buffers, creates process groups and runs late imports. The option
        ``warm_up: false`` switches the warm-up off, and ``preview_every: 0`` only its preview.
        """
        if not self.options.warm_up:
            return
        defaults = {**self.limits.defaults, "prompt": "warm-up", "steps": 1}
        params = VideoParams.model_validate(defaults, context={"limits": self.limits})
        self.ranks.prepare(self._tokens(params))
        conditions = self._share(params, *self._encode_text(params))
        denoiser = self._denoiser(params, conditions, seed=0, resume=None)
        estimates = [state.estimate for state in denoiser]
        if self.group.leader:
            if self.options.preview_every:
                self._preview(estimates[-1])
            first, *_ = self._decode(denoiser)
            with (
                tempfile.TemporaryDirectory(prefix="daybreak-warm-up-") as folder,
                self._writer(Path(folder) / "video.mp4", params) as writer,
            ):
                writer.write(first[:1])
        self.model.unload()

    def run(self, task: Task[VideoParams], ctx: Context) -> Iterator[Step]:
        """Make one video: ``video.mp4`` and ``poster.webp``."""
        try:
            yield from self._run(task, ctx)
        finally:
            self.model.unload()

    def _run(self, task: Task[VideoParams], ctx: Context) -> Iterator[Step]:
        from daybreak_server.workloads.video.pipeline.denoise import fingerprint

        params = self._checked(task.params)
        seed = params.seed_for(task.id)
        run_fingerprint = fingerprint(self.model, params, seed)
        exchange = self.ranks.prepare(self._tokens(params))
        ctx.log(f"{params.size}, {params.frames} frames, {params.steps} steps, seed {seed}; "
                f"{self.ranks.plan.explain(self.model.info.heads)}")  # fmt: skip
        if exchange == "whole" and self.ranks.plan.sequence > 1:
            ctx.log(
                f"{self._tokens(params)} tokens are not divisible by {self.ranks.plan.sequence}: each rank "
                "computes all of them. Another size or number of frames would be faster.",
                level="warning",
            )
        resume = self._resume(ctx, run_fingerprint)
        if self.group.leader:
            self._check_prompts(params, ctx)
        texts = self._encode_text(params)
        yield Step(phase="encode_prompt", fraction=PHASES["encode_prompt"], steps=params.steps)
        conditions = self._share(params, *texts)

        denoiser = self._denoiser(params, conditions, seed=seed, resume=resume)
        yield from self._denoise(denoiser, run_fingerprint, ctx)
        last_snapshot = denoiser.snapshot()
        done = PHASES["encode_prompt"] + PHASES["denoise"]

        def step(phase: str, part: float) -> Step:
            return Step(
                phase=phase, fraction=min(1.0, done + part), step=params.steps, steps=params.steps,
                snapshot=lambda: last_snapshot.dump(run_fingerprint),
            )  # fmt: skip

        frames: list[Frames] = []
        parts = self._decode_parts(params)
        decoding = self._decode(denoiser) if self.group.leader else None
        for part in range(parts):
            if decoding is not None:
                frames.append(next(decoding))
            yield step("decode", PHASES["decode"] * (part + 1) / parts)
        if decoding is not None:
            # Run the generator past its last yield. This drops the VAE's cache now, not when the generator is deleted.
            next(decoding, None)
        for share in self._encode(params, frames, ctx):
            yield step("encode", PHASES["decode"] + PHASES["encode"] * share)

    def _checked(self, params: VideoParams) -> VideoParams:
        """Check the input against the limits of this model. A gateway may know only those of the model's family."""
        try:
            return VideoParams.model_validate(params.model_dump(), context={"limits": self.limits})
        except ValidationError as exc:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise PermanentError(problems, code="invalid_input") from exc

    def _tokens(self, params: VideoParams) -> int:
        return self.limits.tokens(params.width, params.height, params.frames)

    def _resume(self, ctx: Context, run_fingerprint: str) -> Snapshot | None:
        from daybreak_server.workloads.video.pipeline import snapshot

        if ctx.resume is None:
            return None
        try:
            saved = snapshot.load(ctx.resume, run_fingerprint, self.model.device)
        except snapshot.SnapshotMismatchError as exc:
            ctx.log(f"the checkpoint cannot be used: {exc}; starting at step 0", level="warning")
            return None
        ctx.resumed_from(saved.step)
        return saved

    def _check_prompts(self, params: VideoParams, ctx: Context) -> None:
        """Warn of a prompt that is longer than the text encoder reads, or refuse it. The pool's options decide which.

        Only the leader has the tokenizer. The other ranks learn of a refusal at the yield after the encoding.
        """
        limit = self.model.text_length
        for name in ("prompt", "negative_prompt") if params.guidance > 1 else ("prompt",):
            count = self.model.count_tokens(getattr(params, name))
            if count <= limit:
                continue
            problem = f"{name} has {count:,} tokens, but the model's text encoder reads {limit:,}"
            if self.options.prompt_too_long == "refuse":
                raise PermanentError(f"{problem}. Shorten it.", code="invalid_input")
            ctx.log(f"{problem}: its end is ignored. Shorten it.", level="warning")

    def _encode_text(self, params: VideoParams) -> tuple[Any, Any, Any]:
        """Encode prompt, negative prompt and first image. Followers get empty buffers of the same shapes."""
        import torch

        model = self.model
        guided = params.guidance > 1
        if self.group.leader:
            first = None if params.image is None else self._first_frame(params, params.image)
            return model.embed(params.prompt), model.embed(params.negative_prompt) if guided else None, first
        text = torch.empty(
            1, model.text_length, model.text_width, dtype=model.transformer.dtype, device=model.device
        )
        first = None
        if params.image is not None:
            from daybreak_server.workloads.video.pipeline.denoise import latent_shape

            shape = latent_shape(model, params)
            first = torch.empty(*shape[:2], 1, *shape[3:], dtype=torch.float32, device=model.device)
        return text, text.clone() if guided else None, first

    def _first_frame(self, params: VideoParams, image: str) -> Tensor:
        """Encode the first image. :raises PermanentError: when the file cannot be decoded."""
        from daybreak_server.workloads.video.pipeline import first_image

        picture = first_image.read(image_file.decode(image), params.width, params.height)
        return self.model.encode_image(picture, params.width, params.height)

    def _share(self, params: VideoParams, prompt: Any, negative: Any, first: Any) -> Conditions:
        from daybreak_server.workloads.video.pipeline.denoise import Conditions

        share = self.ranks.share
        return Conditions(
            prompt=share(prompt),
            negative=None if negative is None else share(negative),
            first_frame=None if first is None else share(first),
        )

    def _denoiser(
        self, params: VideoParams, conditions: Conditions, *, seed: int, resume: Snapshot | None
    ) -> Denoiser:
        from daybreak_server.workloads.video.pipeline.denoise import Denoiser

        return Denoiser(self.model, self.ranks, params, conditions, seed=seed, resume=resume)

    def _denoise(self, denoiser: Denoiser, run_fingerprint: str, ctx: Context) -> Iterator[Step]:
        every, steps = self.options.preview_every, denoiser.steps
        for state in denoiser:
            snapshot = state.snapshot
            if self.group.leader and every and snapshot.step % every == 0 and snapshot.step < steps:
                ctx.preview(self._preview(state.estimate), step=snapshot.step)
            yield Step(
                phase="denoise",
                fraction=PHASES["encode_prompt"] + PHASES["denoise"] * snapshot.step / steps,
                step=snapshot.step,
                steps=steps,
                snapshot=lambda snapshot=snapshot: snapshot.dump(run_fingerprint),  # type: ignore[misc]
            )

    def _preview(self, estimate: Tensor) -> bytes:
        from daybreak_server.workloads.video.pipeline.decode import preview

        with self.model.on_device(self.model.vae) as vae:
            return preview(vae, estimate)

    def _tiled(self) -> bool:
        return self.options.vae_tiling and self.model.info.vae_class == "AutoencoderKLWan"

    def _decode_parts(self, params: VideoParams) -> int:
        from daybreak_server.workloads.video.pipeline.decode import chunks

        latent_frames = (params.frames - 1) // self.model.info.temporal + 1
        return chunks(self.model.info.vae_class, latent_frames, tiled=self._tiled())

    def _decode(self, denoiser: Denoiser) -> Iterator[Frames]:
        from daybreak_server.workloads.video.pipeline.decode import decode

        with self.model.on_device(self.model.vae) as vae:
            yield from decode(vae, denoiser.result(), tiled=self._tiled())

    def _encode(self, params: VideoParams, frames: list[Frames], ctx: Context) -> Iterator[float]:
        """Write the files on the leader, and yield the fraction that is done. Followers only yield."""
        batches = -(-params.frames // FRAMES_PER_YIELD)
        if not self.group.leader:
            yield from ((part + 1) / batches for part in range(batches))
            return
        import numpy as np

        from daybreak_server.workloads.video.pipeline.decode import webp

        video, poster = ctx.workdir / "video.mp4", ctx.workdir / "poster.webp"
        pictures: Frames = np.concatenate(frames)
        poster.write_bytes(webp(pictures[len(pictures) // 2], side=640))
        with self._writer(video, params) as writer:
            for part in range(batches):
                writer.write(pictures[part * FRAMES_PER_YIELD : (part + 1) * FRAMES_PER_YIELD])
                if part + 1 < batches:
                    yield (part + 1) / batches
        ctx.artifact(video, content_type="video/mp4")
        ctx.artifact(poster, content_type="image/webp")
        ctx.log(f"{video.name}: {params.frames} frames, {video.stat().st_size:,} bytes")
        yield 1.0

    def _writer(self, path: Path, params: VideoParams) -> Mp4Writer:
        from daybreak_server.workloads.video.pipeline.encode import Mp4Writer

        return Mp4Writer(
            path, fps=params.fps, width=params.width, height=params.height, crf=self.options.crf,
            preset=self.options.preset, threads=self.options.encoder_threads,
        )  # fmt: skip


def _device(group: Group) -> Any:
    """The torch device of a rank. For ``cuda`` without an index, this is the rank's own GPU."""
    import torch

    device = torch.device(group.device)
    if device.type == "cuda" and device.index is None:
        # Ray shows each actor only its own GPUs, so on Ray the first GPU is the right one.
        visible = torch.cuda.device_count()
        device = torch.device("cuda", group.local_rank if group.local_rank < visible else 0)
    return device
