"""Tests of the denoise loop: it computes what the stock pipeline computes, and can be resumed from any step."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import video_support as support
from PIL import ExifTags, Image
from video_images import header_only

from daybreak_server.workloads.base import PermanentError, Task
from daybreak_server.workloads.video.pipeline import first_image
from daybreak_server.workloads.video.pipeline.decode import decode, to_frames
from daybreak_server.workloads.video.pipeline.denoise import Denoiser


def picture() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)
    return Image.fromarray(pixels)


def as_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def stock(kind: str, params: Any, image: Image.Image | None = None, **call_options: Any) -> Any:
    """Run the task in diffusers' own pipeline."""
    import diffusers

    pipeline = support.build_pipeline(kind)
    if image is not None:
        pipeline = diffusers.WanImageToVideoPipeline(
            **pipeline.components, boundary_ratio=None, expand_timesteps=True
        )
        call_options["image"] = image
    pipeline.set_progress_bar_config(disable=True)
    if params.shift is not None:
        pipeline.scheduler = diffusers.UniPCMultistepScheduler.from_config(
            pipeline.scheduler.config, flow_shift=params.shift
        )
    return pipeline(
        prompt=params.prompt, negative_prompt=params.negative_prompt, height=params.height,
        width=params.width, num_frames=params.frames, num_inference_steps=params.steps,
        guidance_scale=params.guidance, generator=torch.Generator().manual_seed(params.seed),
        max_sequence_length=support.TEXT_LENGTH, **call_options,
    ).frames  # fmt: skip


def ours(workload: Any, params: Any) -> torch.Tensor:
    """Run the task in Daybreak's loop, and return the final latents."""
    conditions = workload._share(params, *workload._encode_text(params))
    denoiser = Denoiser(workload.model, workload.ranks, params, conditions, seed=params.seed)
    for _ in denoiser:
        pass
    return denoiser.result()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("a14b", {"guidance": 4.0, "guidance_2": 2.5, "negative_prompt": "blurry", "shift": 5.0}),
        ("a14b", {"guidance": 1.0, "steps": 3}),
        ("ti2v", {"guidance": 5.0, "size": "64x32"}),
        ("ti2v", {"guidance": 5.0, "image": as_base64(picture())}),
        ("single", {"guidance": 3.0, "negative_prompt": "dull", "steps": 1}),
    ],
)
def test_latents_and_pixels_equal_those_of_the_stock_pipeline(
    folders: dict[str, Path], kind: str, fields: dict[str, Any]
) -> None:
    """Latents and decoded pixels equal those of WanPipeline or WanImageToVideoPipeline, bit for bit."""
    workload = support.workload({"model": folders[kind]})
    params = support.params(folders[kind], **fields)
    image = picture() if "image" in fields else None
    extra = {"guidance_scale_2": params.guidance_2} if kind == "a14b" else {}
    latents = ours(workload, params)
    assert torch.equal(latents, stock(kind, params, image, output_type="latent", **extra))
    frames = np.concatenate(list(decode(workload.model.vae, latents)))
    expected = stock(kind, params, image, output_type="pt", **extra)[0]
    assert expected.shape[0] == params.frames
    # The stock pipeline returns floats from 0 to 1, and our decoder returns bytes.
    assert np.array_equal(frames, expected.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def test_a14b_switches_once_from_the_high_noise_to_the_low_noise_expert(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first steps use the high-noise expert, and all steps after the boundary use the low-noise expert."""
    workload = support.workload({"model": folders["a14b"]})
    used: list[int] = []
    for number, expert in enumerate(workload.model.transformers):
        forward = expert.forward
        monkeypatch.setattr(
            expert, "forward", lambda *a, n=number, f=forward, **k: (used.append(n), f(*a, **k))[1]
        )
    ours(workload, support.params(folders["a14b"], steps=6, shift=3.0))
    assert set(used) == {0, 1}
    assert used == sorted(used)


@pytest.mark.parametrize("kind", ["single", "ti2v"])
@pytest.mark.parametrize("tiled", [False, True])
def test_chunked_decoding_equals_the_stock_decoder(folders: dict[str, Path], kind: str, tiled: bool) -> None:
    """Our decoder gives the frames of ``AutoencoderKLWan.decode``.

    Without tiles it decodes in chunks. With tiles it decodes all frames at once.
    """
    vae = support.workload({"model": folders[kind]}).model.vae
    if tiled:
        vae.enable_tiling(48, 48, 32, 32)
    z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    raw = z / (1.0 / deviation).view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
    with torch.no_grad():
        expected = to_frames(vae.decode(raw, return_dict=False)[0])
    chunks = list(decode(vae, z, tiled=tiled))
    assert [len(part) for part in chunks] == ([9] if tiled else [1, 4, 4])
    assert np.array_equal(np.concatenate(chunks), expected)


def test_tiled_decoding_stays_close_to_untiled_decoding(folders: dict[str, Path]) -> None:
    """Tiling needs less memory. It changes the picture only slightly, in the areas where tiles are blended."""
    vae = support.workload({"model": folders["single"]}).model.vae
    z = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = np.concatenate(list(decode(vae, z))).astype(int)
    vae.enable_tiling(48, 48, 32, 32)
    tiled = np.concatenate(list(decode(vae, z, tiled=True))).astype(int)
    assert whole.shape == tiled.shape
    assert np.abs(whole - tiled).mean() < 4


@pytest.mark.parametrize("stop", [1, 2, 5, 6])
def test_a_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(
    folders: dict[str, Path], single: Any, tmp_path: Path, stop: int
) -> None:
    """A run may resume from the snapshot of any step. Its MP4 has the same bytes as that of an uninterrupted run."""
    params = support.params(folders["single"])
    steps, whole = support.run(single, params, tmp_path / "whole")
    stopped = next(step for step in steps if step.step == stop and step.snapshot is not None)
    assert stopped.snapshot is not None
    remaining, resumed = support.run(single, params, tmp_path / "resumed", resume=stopped.snapshot())
    assert resumed.resumed == stop
    assert [step.step for step in remaining if step.phase == "denoise"] == list(range(stop + 1, 7))
    assert resumed.files == whole.files


def test_a_run_with_an_unusable_snapshot_starts_at_step_zero(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """A snapshot that is truncated, meaningless or from another task is ignored, and the task's log says so.

    The video is the same as without a snapshot.
    """
    params = support.params(folders["single"], steps=2)
    steps, whole = support.run(single, params, tmp_path / "whole")
    other, _ = support.run(single, support.params(folders["single"], steps=2, seed=4), tmp_path / "other")
    good, other_task = (run[2].snapshot for run in (steps, other))
    assert good is not None
    assert other_task is not None
    header = (2**62).to_bytes(8, "little")
    for bad in (other_task(), good()[:-5], good()[:40], b"", b"nonsense", b"\x02\0\0\0\0\0\0\0[]", header):
        recorder = support.Recorder(tmp_path, resume=bad)
        running = single.run(Task(id="video_01TEST", params=params), recorder)
        assert [next(running).step, next(running).step] == [0, 1]
        running.close()
        assert recorder.resumed is None
        assert any("starting at step 0" in line for line in recorder.lines)
    assert support.run(single, params, tmp_path / "again", resume=other_task())[1].files == whole.files


def test_a_cancelled_task_does_not_change_the_next_one(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """Closing the generator at a yield of any phase stops the work, and the next task gives the right video."""
    params = support.params(folders["single"])
    _, whole = support.run(single, params, tmp_path / "whole")
    # One yield in each phase, and the last yield.
    for yields in (1, 3, 8, 11):
        recorder = support.Recorder(tmp_path / "cancelled")
        recorder.workdir.mkdir(exist_ok=True)
        running = single.run(Task(id="video_01TEST", params=params), recorder)
        for _ in range(yields):
            next(running)
        running.close()
        assert not list(recorder.workdir.glob(".*.part"))
    assert support.run(single, params, tmp_path / "again")[1].files == whole.files


@pytest.mark.parametrize(("kind", "chunks"), [("single", 3), ("block", 1)])
def test_a_run_reports_rising_progress_and_leaves_two_artifacts(
    folders: dict[str, Path], tmp_path: Path, kind: str, chunks: int
) -> None:
    """Fractions rise to 1, phases come in order, previews come every 2 steps, and the run adds two artifacts."""
    workload = support.workload({"model": folders[kind], "preview_every": 2, "warm_up": True})
    workload.warm_up()
    steps, recorder = support.run(workload, support.params(folders[kind]), tmp_path / "run")
    assert [step.phase for step in steps].count("decode") == chunks
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["encode_prompt", "denoise", "decode", "encode"]
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert [step for step, _ in recorder.previews] == [2, 4]
    assert all(image[:4] == b"RIFF" and len(image) <= 32 * 1024 for _, image in recorder.previews)
    assert set(recorder.files) == {"video.mp4", "poster.webp"}


def test_load_refuses_wrong_options_permanently(folders: dict[str, Path], tmp_path: Path) -> None:
    """The load fails on a missing folder, an unknown option or an unknown kernel, and the error names what is wrong."""
    for options, words in [
        ({"model": tmp_path / "nothing"}, "model_index.json is missing"),
        ({"model": folders["single"], "nonsense": 1}, "nonsense"),
        ({"model": folders["single"], "attention": "no_such_kernel"}, "no_such_kernel"),
    ]:
        with pytest.raises(PermanentError, match=words):
            support.workload(options)


def test_a_first_image_is_turned_upright_and_cropped_before_it_is_encoded(folders: dict[str, Path]) -> None:
    """A photograph that is rotated and wider than the video gives the same latents as its upright middle part."""
    workload = support.workload({"model": folders["ti2v"]})
    wide = Image.new("RGB", (120, 40))
    wide.paste(picture(), (40, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    wide.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    rotated = base64.encodebytes(buffer.getvalue()).decode()
    size = {"size": "32x32"}
    upright = first_image.cover(wide, 32, 32)
    _, _, latents = workload._encode_text(support.params(folders["ti2v"], image=rotated, **size))
    _, _, expected = workload._encode_text(support.params(folders["ti2v"], image=as_base64(upright), **size))
    assert torch.equal(latents, expected)


def test_a_damaged_first_image_fails_the_task_permanently(folders: dict[str, Path], tmp_path: Path) -> None:
    """A file that has a valid header but no pixels fails the task permanently, because a retry cannot help."""
    workload = support.workload({"model": folders["ti2v"]})
    broken = base64.b64encode(header_only("PNG", 40, 40)).decode()
    with pytest.raises(PermanentError, match="damaged or cut off") as caught:
        support.run(workload, support.params(folders["ti2v"], image=broken), tmp_path / "run")
    assert caught.value.code == "invalid_input"


@pytest.mark.heavy
def test_the_number_of_threads_does_not_change_the_video(folders: dict[str, Path], tmp_path: Path) -> None:
    """One, two and three threads give the same bytes (with MKL in its reproducible mode)."""
    before = torch.get_num_threads()
    try:
        files = []
        for threads in (1, 2, 3):
            workload = support.workload({"model": folders["single"], "threads": threads})
            assert torch.get_num_threads() == threads
            files.append(
                support.run(workload, support.params(folders["single"]), tmp_path / str(threads))[1].files
            )
        assert files[0] == files[1] == files[2]
    finally:
        torch.set_num_threads(before)
