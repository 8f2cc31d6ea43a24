"""The denoise loop gives the same numbers as the stock pipeline, and a resumed run the same as one never stopped."""

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


def stock(kind: str, params: Any, image: Image.Image | None = None, **given: Any) -> Any:
    """What diffusers' own pipeline makes of the same task."""
    import diffusers

    pipeline = support.build_pipeline(kind)
    if image is not None:
        pipeline = diffusers.WanImageToVideoPipeline(
            **pipeline.components, boundary_ratio=None, expand_timesteps=True
        )
        given["image"] = image
    pipeline.set_progress_bar_config(disable=True)
    if params.shift is not None:
        pipeline.scheduler = diffusers.UniPCMultistepScheduler.from_config(
            pipeline.scheduler.config, flow_shift=params.shift
        )
    return pipeline(
        prompt=params.prompt, negative_prompt=params.negative_prompt, height=params.height,
        width=params.width, num_frames=params.frames, num_inference_steps=params.steps,
        guidance_scale=params.guidance, generator=torch.Generator().manual_seed(params.seed),
        max_sequence_length=support.TEXT_LENGTH, **given,
    ).frames  # fmt: skip


def ours(made: Any, params: Any) -> torch.Tensor:
    """The latents that our loop ends with."""
    conditions = made._share(params, *made._encode_text(params))
    denoiser = Denoiser(made.model, made.ranks, params, conditions, seed=params.seed)
    for _ in denoiser:
        pass
    return denoiser.result()


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("a14b", {"guidance": 4.0, "guidance_2": 2.5, "negative_prompt": "blurry", "shift": 5.0}),
        ("a14b", {"guidance": 1.0, "steps": 3}),
        ("ti2v", {"guidance": 5.0, "size": "64x32"}),
        ("ti2v", {"guidance": 5.0, "image": as_base64(picture())}),
        ("single", {"guidance": 3.0, "negative_prompt": "dull", "steps": 1}),
    ],
)
def test_equals_stock(folders: dict[str, Path], kind: str, given: dict[str, Any]) -> None:
    """Latents and decoded pixels equal WanPipeline's (or the stock image-to-video one's), bit for bit."""
    made = support.workload({"model": folders[kind]})
    params = support.params(folders[kind], **given)
    image = picture() if "image" in given else None
    extra = {"guidance_scale_2": params.guidance_2} if kind == "a14b" else {}
    latents = ours(made, params)
    assert torch.equal(latents, stock(kind, params, image, output_type="latent", **extra))
    frames = np.concatenate(list(decode(made.model.vae, latents)))
    expected = stock(kind, params, image, output_type="pt", **extra)[0]
    assert expected.shape[0] == params.frames
    # The stock pipeline gives floats in 0..1; ours are its bytes.
    assert np.array_equal(frames, expected.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def test_a14b_uses_both_experts(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The boundary is crossed once: steps of the high-noise expert, then of the other."""
    made = support.workload({"model": folders["a14b"]})
    used: list[int] = []
    for number, expert in enumerate(made.model.transformers):
        forward = expert.forward
        monkeypatch.setattr(
            expert, "forward", lambda *a, n=number, f=forward, **k: (used.append(n), f(*a, **k))[1]
        )
    ours(made, support.params(folders["a14b"], steps=6, shift=3.0))
    assert set(used) == {0, 1}
    assert used == sorted(used)


@pytest.mark.parametrize("kind", ["single", "ti2v"])
@pytest.mark.parametrize("tiled", [False, True])
def test_wan_vae_decode(folders: dict[str, Path], kind: str, tiled: bool) -> None:
    """Our decode equals ``AutoencoderKLWan.decode``, chunk by chunk without tiles and at once with them."""
    vae = support.workload({"model": folders[kind]}).model.vae
    if tiled:
        vae.enable_tiling(48, 48, 32, 32)
    z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    raw = z / (1.0 / deviation).view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
    with torch.no_grad():
        expected = to_frames(vae.decode(raw, return_dict=False)[0])
    parts = list(decode(vae, z, tiled=tiled))
    assert [len(part) for part in parts] == ([9] if tiled else [1, 4, 4])
    assert np.array_equal(np.concatenate(parts), expected)


def test_tiles_are_near_the_whole(folders: dict[str, Path]) -> None:
    """Tiling changes memory, not the picture: blended tiles stay close to the untiled decode."""
    vae = support.workload({"model": folders["single"]}).model.vae
    z = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = np.concatenate(list(decode(vae, z))).astype(int)
    vae.enable_tiling(48, 48, 32, 32)
    tiled = np.concatenate(list(decode(vae, z, tiled=True))).astype(int)
    assert whole.shape == tiled.shape
    assert np.abs(whole - tiled).mean() < 4


@pytest.mark.parametrize("stop", [1, 2, 5, 6])
def test_resume_equals_uninterrupted(
    folders: dict[str, Path], single: Any, tmp_path: Path, stop: int
) -> None:
    """A run taken up from the snapshot after any step leaves the same MP4 bytes as one never stopped."""
    params = support.params(folders["single"])
    steps, whole = support.run(single, params, tmp_path / "whole")
    taken = next(step for step in steps if step.step == stop and step.snapshot is not None)
    assert taken.snapshot is not None
    again, resumed = support.run(single, params, tmp_path / "again", resume=taken.snapshot())
    assert resumed.resumed == stop
    assert [step.step for step in again if step.phase == "denoise"] == list(range(stop + 1, 7))
    assert resumed.files == whole.files


def test_bad_snapshots_start_at_zero(folders: dict[str, Path], single: Any, tmp_path: Path) -> None:
    """Bytes of another task, cut short or of no sense are logged and not used; the result is the same."""
    params = support.params(folders["single"], steps=2)
    steps, whole = support.run(single, params, tmp_path / "whole")
    other, _ = support.run(single, support.params(folders["single"], steps=2, seed=4), tmp_path / "other")
    good, foreign = (run[2].snapshot for run in (steps, other))
    assert good is not None
    assert foreign is not None
    header = (2**62).to_bytes(8, "little")
    for bad in (foreign(), good()[:-5], good()[:40], b"", b"nonsense", b"\x02\0\0\0\0\0\0\0[]", header):
        recorder = support.Recorder(tmp_path, resume=bad)
        running = single.run(Task(id="video_01TEST", params=params), recorder)
        assert [next(running).step, next(running).step] == [0, 1]
        running.close()
        assert recorder.resumed is None
        assert any("starting at step 0" in line for line in recorder.lines)
    assert support.run(single, params, tmp_path / "again", resume=foreign())[1].files == whole.files


def test_cancel_leaves_the_workload_usable(folders: dict[str, Path], single: Any, tmp_path: Path) -> None:
    """Closing the generator at any yield stops the work; the next task is not touched by it."""
    params = support.params(folders["single"])
    _, whole = support.run(single, params, tmp_path / "whole")
    # In each phase, and after the last yield.
    for after in (1, 3, 8, 11):
        recorder = support.Recorder(tmp_path / "cancelled")
        recorder.workdir.mkdir(exist_ok=True)
        running = single.run(Task(id="video_01TEST", params=params), recorder)
        for _ in range(after):
            next(running)
        running.close()
        assert not list(recorder.workdir.glob(".*.part"))
    assert support.run(single, params, tmp_path / "again")[1].files == whole.files


@pytest.mark.parametrize(("kind", "chunks"), [("single", 3), ("block", 1)])
def test_steps_and_artifacts(folders: dict[str, Path], tmp_path: Path, kind: str, chunks: int) -> None:
    """Fractions rise to 1, phases keep their order, previews come at the cadence, two files are left."""
    made = support.workload({"model": folders[kind], "preview_every": 2, "warm_up": True})
    made.warm_up()
    steps, recorder = support.run(made, support.params(folders[kind]), tmp_path / "run")
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


def test_options_that_cannot_be_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Wrong options and folders fail at load, for good, with a message."""
    for options, words in [
        ({"model": tmp_path / "nothing"}, "model_index.json is missing"),
        ({"model": folders["single"], "nonsense": 1}, "nonsense"),
        ({"model": folders["single"], "attention": "no_such_kernel"}, "no_such_kernel"),
    ]:
        with pytest.raises(PermanentError, match=words):
            support.workload(options)


def test_the_model_sees_a_first_image_upright_and_cropped(folders: dict[str, Path]) -> None:
    """A photograph that lies on its side and is wider than the video gives the latents of its upright middle."""
    made = support.workload({"model": folders["ti2v"]})
    wide = Image.new("RGB", (120, 40))
    wide.paste(picture(), (40, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    wide.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    lying = base64.encodebytes(buffer.getvalue()).decode()
    size = {"size": "32x32"}
    wanted = first_image.cover(wide, 32, 32)
    _, _, found = made._encode_text(support.params(folders["ti2v"], image=lying, **size))
    _, _, expected = made._encode_text(support.params(folders["ti2v"], image=as_base64(wanted), **size))
    assert torch.equal(found, expected)


def test_broken_first_image_fails_for_good(folders: dict[str, Path], tmp_path: Path) -> None:
    """A picture that only looks like one is the task's own fault: no retry."""
    made = support.workload({"model": folders["ti2v"]})
    broken = base64.b64encode(header_only("PNG", 40, 40)).decode()
    with pytest.raises(PermanentError, match="damaged or cut off") as caught:
        support.run(made, support.params(folders["ti2v"], image=broken), tmp_path / "run")
    assert caught.value.code == "invalid_input"


def test_threads_do_not_change_the_video(folders: dict[str, Path], tmp_path: Path) -> None:
    """One, two and three threads leave the same bytes (with MKL in its reproducible mode)."""
    before = torch.get_num_threads()
    try:
        files = []
        for threads in (1, 2, 3):
            made = support.workload({"model": folders["single"], "threads": threads})
            assert torch.get_num_threads() == threads
            files.append(
                support.run(made, support.params(folders["single"]), tmp_path / str(threads))[1].files
            )
        assert files[0] == files[1] == files[2]
    finally:
        torch.set_num_threads(before)
