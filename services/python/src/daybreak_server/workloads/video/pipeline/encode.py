"""Pictures to an MP4 (H.264), and an MP4 to a contact sheet.

Equal frames give equal bytes. Two things had to be found for that. RGB is converted to yuv420p explicitly and
with one thread. And x264's macroblock tree is off: its AVX-512 code (PyAV 18.1's wheel) reads memory that
nobody wrote, so equal pictures gave up to 15 different files in 15 runs once the heap was dirty; with
``asm=avx2`` or without the tree always one. Without the tree x264 is also bit-exact between kinds of CPU.

PyAV's wheel links libx264 (GPLv2+), which is why it is an extra of its own (docs/05-video.md); only the
leader of a group needs it.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from PIL import Image

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.pipeline.decode import Frames

BT709 = 1
"""Of colour primaries, transfer and matrix alike, in H.264's tables (ITU-T H.273)."""
LIMITED_RANGE = 1


def pyav() -> ModuleType:
    """PyAV. :raises PermanentError: when it is not installed, saying how to."""
    try:
        import av
    except ImportError as exc:
        raise PermanentError(
            "MP4 files need PyAV on the group's first rank: pip install 'daybreak-server[mp4]'",
            code="no_encoder",
        ) from exc
    module: ModuleType = av
    return module


class Mp4Writer:
    """Writes frames to ``path`` as they come; the file appears under its name only when it is whole.

    A context manager: leaving it without an error finishes the file, with one removes it.
    """

    def __init__(
        self, path: Path, *, fps: int, width: int, height: int, crf: int = 18, preset: str = "veryfast",
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._av = pyav()
        self._path, self._count = path, 0
        # Of the frames; the muxer is free to count the stream in finer ticks, and does.
        self._tick = Fraction(1, fps)
        self._temporary = path.with_name(f".{path.name}.part")
        # faststart moves the index to the front, so that a browser can play before it has all.
        self._container = self._av.open(
            str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"}
        )
        try:
            self._stream = self._open_stream(fps, width, height, crf=crf, preset=preset, threads=threads)
        except BaseException:
            self._discard()
            raise

    def _open_stream(self, fps: int, width: int, height: int, *, crf: int, preset: str, threads: int) -> Any:
        options = {"crf": str(crf), "preset": preset, "threads": str(threads), "x264-params": "mbtree=0"}
        stream = self._container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        context.thread_count = threads
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        return stream

    def write(self, frames: Frames) -> None:
        """Append frames [n, height, width, 3]."""
        for picture in frames:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
            frame.pts = self._count
            frame.time_base = self._tick
            self._count += 1
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.replace(self._temporary, self._path)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        try:
            self._container.close()
        finally:
            self._temporary.unlink(missing_ok=True)


def read_mp4(path: Path) -> Frames:
    """All frames of an MP4, [n, height, width, 3] RGB."""
    with pyav().open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contact_sheet(video: Path, sheet: Path, *, columns: int = 6, most: int = 18, side: int = 192) -> None:
    """A PNG grid of frames spread evenly over an MP4, first and last among them, scaled to ``side``."""
    frames = read_mp4(video)
    picked = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    rows, gap = -(-len(picked) // columns), 4
    across = min(columns, len(picked))
    page = Image.new("RGB", (across * (cell[0] + gap) + gap, rows * (cell[1] + gap) + gap), (24, 24, 24))
    for place, index in enumerate(picked):
        corner = (gap + place % columns * (cell[0] + gap), gap + place // columns * (cell[1] + gap))
        page.paste(Image.fromarray(frames[index]).resize(cell, Image.Resampling.LANCZOS), corner)
    page.save(sheet, "PNG")
