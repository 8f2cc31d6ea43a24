"""Encodes frames as an MP4 (H.264), and draws an MP4 as a contact sheet.

Equal frames give equal bytes if the encoder has the same number of threads. Two measures ensure this:

* RGB is converted to yuv420p explicitly and in one thread.
* x264's macroblock tree is off. Its AVX-512 code (in the wheel of PyAV 18.1) reads uninitialised memory. So, if the
  process had used and freed memory before, 15 runs with equal frames wrote as many as 15 different files. With
  ``asm=avx2``, or without the tree, all runs wrote the same file. Without the tree, x264 also writes the same bytes on
  different kinds of CPU.

The wheel of PyAV links libx264 (GPLv2+). Therefore PyAV is a separate extra (docs/05-video.md), which only the leader
of a group needs.
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
"""BT.709 has this number in each of H.264's tables for primaries, transfer and matrix (ITU-T H.273)."""
LIMITED_RANGE = 1


def pyav() -> ModuleType:
    """Import PyAV. :raises PermanentError: when it is not installed. The message says how to install it."""
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
    """Writes frames to an MP4 at ``path``. Until the file is complete, it has another name.

    This is a context manager. Its exit finishes the file, or removes it after an error.

    :raises PermanentError: when PyAV is not installed.
    """

    def __init__(
        self, path: Path, *, fps: int, width: int, height: int, crf: int = 18, preset: str = "veryfast",
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._av = pyav()
        self._path, self._count = path, 0
        # The unit of the frames' timestamps is a frame's duration. The container's own unit is finer, so each frame
        # names its unit.
        self._tick = Fraction(1, fps)
        self._temporary = path.with_name(f".{path.name}.part")
        # faststart moves the index to the front, so that a browser can begin to play the file during its download.
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
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE, threads=1
            )
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
    """Read all frames of an MP4 as RGB [n, height, width, 3]. :raises PermanentError: when PyAV is not installed."""
    with pyav().open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contact_sheet(
    video: Path, sheet: Path, *, columns: int = 6, max_frames: int = 18, side: int = 192
) -> None:
    """Write a PNG grid of at most ``max_frames`` frames of an MP4, evenly spaced from the first to the last.

    The longer side of each frame is ``side`` pixels.
    """
    frames = read_mp4(video)
    indices = np.unique(np.linspace(0, len(frames) - 1, min(max_frames, len(frames))).round().astype(int))
    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    rows, gap = -(-len(indices) // columns), 4
    used_columns = min(columns, len(indices))
    page_size = (used_columns * (cell[0] + gap) + gap, rows * (cell[1] + gap) + gap)
    page = Image.new("RGB", page_size, (24, 24, 24))
    for place, index in enumerate(indices):
        corner = (gap + place % columns * (cell[0] + gap), gap + place // columns * (cell[1] + gap))
        page.paste(Image.fromarray(frames[index]).resize(cell, Image.Resampling.LANCZOS), corner)
    page.save(sheet, "PNG")
