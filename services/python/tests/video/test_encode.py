"""Tests of the MP4 encoder, the contact sheet and the previews."""

from __future__ import annotations

import builtins
import ctypes
import random
import sys
from ctypes import c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.pipeline.decode import PREVIEW_BYTES, webp
from daybreak_server.workloads.video.pipeline.encode import Mp4Writer, contact_sheet, read_mp4

SIZE = {"width": 96, "height": 64}


def clip(height: int = 64, width: int = 96) -> Any:
    """Make a clip of a moving gradient with noise, of shape [17, height, width, 3]."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 200, width, dtype=np.uint8)[None, :, None]
    base = slope + rng.integers(0, 40, (height, width, 3), np.uint8)
    return np.stack([np.roll(base, 3 * i, axis=1) for i in range(17)])


def write(path: Path, frames: Any) -> bytes:
    height, width = frames.shape[1:3]
    with Mp4Writer(path, fps=8, width=width, height=height) as writer:
        writer.write(frames)
    return path.read_bytes()


def soil_the_heap() -> None:
    """Leave random bytes in freed memory, so that code which reads uninitialised memory gives varying results."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = c_void_p, [c_size_t], [c_void_p]
    blocks = []
    for size in random.choices([500, 3_000, 20_000, 80_000, 120_000], k=100):
        blocks.append(libc.malloc(size))
        ctypes.memset(blocks[-1], random.randrange(256), size)
    random.shuffle(blocks)
    for block in blocks:
        libc.free(block)


@pytest.mark.skipif(sys.platform != "linux", reason="calls malloc of glibc")
def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    """Twenty encodes of one clip give the same file, so a SHA-256 can prove that two videos are equal."""
    for height, width in ((64, 96), (32, 48), (64, 32), (64, 64)):
        frames, encodings = clip(height, width), set()
        for _ in range(20):
            soil_the_heap()
            encodings.add(write(tmp_path / "video.mp4", frames))
        assert len(encodings) == 1, f"equal frames of {width}x{height} gave {len(encodings)} different files"
        assert write(tmp_path / "other.mp4", frames // 2) not in encodings


def test_an_mp4_has_its_index_first_and_keeps_its_colours(tmp_path: Path) -> None:
    """The index comes before the data, so a browser can start to play at once. Decoding gives the original colours."""
    colours = np.zeros((5, 64, 96, 3), np.uint8)
    colours[:, :32, :48], colours[:, :32, 48:] = (230, 30, 30), (30, 200, 40)
    colours[:, 32:, :48], colours[:, 32:, 48:] = (40, 70, 240), (240, 220, 30)
    data = write(tmp_path / "video.mp4", colours)
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    decoded = read_mp4(tmp_path / "video.mp4")
    assert decoded.shape == colours.shape
    corners = (slice(None), [16, 16, 48, 48], [24, 72, 24, 72])
    assert np.abs(decoded[corners].astype(int) - colours[corners].astype(int)).max() <= 12


def test_a_failed_encode_leaves_no_file(tmp_path: Path) -> None:
    """After an error in the encoder, the temporary file is removed, and no file gets the final name."""
    writer = Mp4Writer(tmp_path / "video.mp4", fps=8, **SIZE)
    writer.write(clip()[:3])
    with pytest.raises(ValueError, match="array shape"), writer:
        writer.write(np.zeros((2, 64, 96, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PyAV the task fails permanently, and the message names the extra to install."""
    real = builtins.__import__

    def import_without_av(name: str, *args: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", import_without_av)
    with pytest.raises(PermanentError, match=r"daybreak-server\[mp4\]") as caught:
        Mp4Writer(tmp_path / "video.mp4", fps=8, **SIZE)
    assert caught.value.code == "no_encoder"


def test_a_contact_sheet_is_a_png_grid_of_frames(tmp_path: Path) -> None:
    """The sheet of a short clip has all 17 frames, in 6 columns."""
    write(tmp_path / "video.mp4", clip())
    contact_sheet(tmp_path / "video.mp4", tmp_path / "sheet.png", columns=6, side=96)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (6 * 100 + 4, 3 * 68 + 4)


def test_a_preview_fits_into_its_byte_limit() -> None:
    """Even noise, the worst picture for WebP, is compressed to at most 32 KiB."""
    noise = np.random.default_rng(0).integers(0, 255, (704, 1280, 3), np.uint8)
    assert len(webp(noise, side=256, max_bytes=PREVIEW_BYTES)) <= PREVIEW_BYTES
    assert len(webp(noise, max_bytes=4096)) <= 4096
