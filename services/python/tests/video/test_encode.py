"""Equal frames give equal bytes, a file is whole or absent, and pictures keep within their bounds."""

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
    """Smooth and noisy parts in motion, [17, height, width, 3]."""
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
    """Leave foreign bytes in freed memory, for code that reads what it never wrote."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = c_void_p, [c_size_t], [c_void_p]
    blocks = []
    for size in random.choices([500, 3_000, 20_000, 80_000, 120_000], k=100):
        blocks.append(libc.malloc(size))
        ctypes.memset(blocks[-1], random.randrange(256), size)
    random.shuffle(blocks)
    for block in blocks:
        libc.free(block)


@pytest.mark.skipif(sys.platform != "linux", reason="malloc by hand is glibc's")
def test_equal_frames_equal_bytes(tmp_path: Path) -> None:
    """Twenty encodes of one clip are one file, so a SHA-256 can prove that two videos are the same."""
    for height, width in ((64, 96), (32, 48), (64, 32), (64, 64)):
        frames, found = clip(height, width), set()
        for _ in range(20):
            soil_the_heap()
            found.add(write(tmp_path / "video.mp4", frames))
        assert len(found) == 1, f"{len(found)} files of {width}x{height}"
        assert write(tmp_path / "other.mp4", frames // 2) not in found


def test_mp4_is_playable_and_true(tmp_path: Path) -> None:
    """The index comes before the data (a browser can start at once), and colours survive the round trip."""
    colours = np.zeros((5, 64, 96, 3), np.uint8)
    colours[:, :32, :48], colours[:, :32, 48:] = (230, 30, 30), (30, 200, 40)
    colours[:, 32:, :48], colours[:, 32:, 48:] = (40, 70, 240), (240, 220, 30)
    data = write(tmp_path / "video.mp4", colours)
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    back = read_mp4(tmp_path / "video.mp4")
    assert back.shape == colours.shape
    corners = (slice(None), [16, 16, 48, 48], [24, 72, 24, 72])
    assert np.abs(back[corners].astype(int) - colours[corners].astype(int)).max() <= 12


def test_a_failed_encode_leaves_nothing(tmp_path: Path) -> None:
    """A file under its name is a whole file: an error or a closed task leaves none, nor its temporary."""
    writer = Mp4Writer(tmp_path / "video.mp4", fps=8, **SIZE)
    writer.write(clip()[:3])
    with pytest.raises(ValueError, match="array shape"), writer:
        writer.write(np.zeros((2, 64, 96, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is missing the task fails for good, saying how to install it."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PermanentError, match=r"daybreak-server\[mp4\]") as caught:
        Mp4Writer(tmp_path / "video.mp4", fps=8, **SIZE)
    assert caught.value.code == "no_encoder"


def test_contact_sheet(tmp_path: Path) -> None:
    """A sheet is one PNG of all 17 frames in a grid."""
    write(tmp_path / "video.mp4", clip())
    contact_sheet(tmp_path / "video.mp4", tmp_path / "sheet.png", columns=6, side=96)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (6 * 100 + 4, 3 * 68 + 4)


def test_previews_are_bounded() -> None:
    """Even noise, the worst picture for WebP, is brought under 32 KiB."""
    noise = np.random.default_rng(0).integers(0, 255, (704, 1280, 3), np.uint8)
    assert len(webp(noise, side=256, max_bytes=PREVIEW_BYTES)) <= PREVIEW_BYTES
    assert len(webp(noise, max_bytes=4096)) <= 4096
