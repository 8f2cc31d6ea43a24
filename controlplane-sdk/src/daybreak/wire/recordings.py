"""Reads recordings for the server and ``daybreak speak``: WAV with the usual kinds of samples, and raw samples.

Python's ``wave`` cannot read float samples, or a file whose header does not state its length. So this module parses the
chunks itself. It only reads forward, so a recording may come through a pipe. Programs that write WAV into a pipe cannot
return to the header to fill in the size of the samples. They leave 0 or a huge number there, and then the samples
extend to the end of the file.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from daybreak.wire.sessions import SAMPLE_RATES

EMPTY = "The recording is empty: it has no samples."
RAW_SUFFIXES = (".pcm", ".raw")
"""The suffixes of the names of files with raw samples."""
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_KINDS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)}
_PCM16_BYTES = 2
_MAX_CHANNELS = 64
_FORMAT_BYTES = 40
"""This module reads at most this many bytes of a ``fmt`` chunk, and skips the rest."""
_SKIPPED_BYTES = 1 << 16


class RecordingError(ValueError):
    """The recording cannot be read. The message says why."""


class NotWavError(RecordingError):
    """The recording is not a WAV file."""


class Source(Protocol):
    """Where a recording comes from: a file, a pipe, or bytes in memory."""

    def read(self, size: int, /) -> bytes:
        """Read ``size`` bytes; fewer only at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFormat:
    """How the samples of a recording are stored."""

    rate: int
    channels: int = 1
    sample_bytes: int = _PCM16_BYTES
    floats: bool = False

    @property
    def encoding(self) -> str:
        """The name that sessions use for the encoding of the samples that :meth:`mono` returns."""
        return "float32" if self.floats else "pcm16"

    @property
    def frame_bytes(self) -> int:
        """The length in bytes of a frame, which has one sample of each channel."""
        return self.channels * self.sample_bytes

    def mono(self, frames: bytes) -> bytes:
        """Mix whole frames into one channel, in a format that sessions accept: 16-bit integers, or floats."""
        if self.channels == 1 and (self.floats or self.sample_bytes == _PCM16_BYTES):
            return frames
        values = self._numbers(frames)
        channels = [values[index :: self.channels] for index in range(self.channels)]
        if self.floats:
            return _packed(array("f", [sum(frame) / self.channels for frame in zip(*channels, strict=True)]))
        # Samples of 8 bits are widened to 16 bits; samples of 24 and 32 bits are narrowed.
        scale = 256 ** (_PCM16_BYTES - self.sample_bytes) / self.channels
        return _packed(array("h", [int(sum(frame) * scale) for frame in zip(*channels, strict=True)]))

    def _numbers(self, frames: bytes) -> list[float]:
        size = self.sample_bytes
        if size == 1:
            return [byte - 128 for byte in frames]
        if size == 3:
            return [
                int.from_bytes(frames[i : i + 3], "little", signed=True) for i in range(0, len(frames), 3)
            ]
        values: array[Any] = array("f" if self.floats else "h" if size == _PCM16_BYTES else "i")
        values.frombytes(frames)
        if sys.byteorder == "big":
            values.byteswap()
        return list(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReader:
    """Reads the samples of a recording after its header."""

    source: Source
    format: SampleFormat
    size: int | None = None
    """The length of the samples in bytes, according to the header. ``None``: read to the end of the recording."""
    head: bytes = b""
    """Samples that have been read already."""

    def pieces(self, seconds: float) -> Iterator[bytes]:
        """The samples as one channel, in pieces of ``seconds``. An incomplete frame at the end is dropped."""
        step = max(1, int(self.format.rate * seconds)) * self.format.frame_bytes
        head, left = self.head, self.size
        while True:
            wanted = step if left is None else min(step, left)
            piece = head[:wanted]
            head = head[wanted:]
            piece += self.source.read(wanted - len(piece)) if len(piece) < wanted else b""
            whole = len(piece) - len(piece) % self.format.frame_bytes
            if not whole:
                return
            yield self.format.mono(piece[:whole])
            left = None if left is None else left - len(piece)


def open_recording(source: Source, *, raw: SampleFormat | None = None) -> SampleReader:
    """Read the header of a recording. ``raw``: the format of the samples if the recording has no header.

    :raises NotWavError: if the recording has no header, and ``raw`` is ``None``.
    :raises RecordingError: if the recording is empty or damaged, or its samples are of a kind that is not supported.
    """
    head = source.read(12)
    if not head:
        raise RecordingError(EMPTY)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _open_wav(source)
    if raw is None:
        raise NotWavError("This is not a WAV file.")
    return SampleReader(source=source, format=raw, head=head)


def _open_wav(source: Source) -> SampleReader:
    found: SampleFormat | None = None
    while len(head := source.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            if found is None:
                raise RecordingError("The WAV file has no format before its samples. It is damaged.")
            return SampleReader(source=source, format=found, size=size or None)
        body = source.read(min(size, _FORMAT_BYTES)) if kind == b"fmt " else b""
        if kind == b"fmt ":
            found = _format(body)
        _skip(source, size + size % 2 - len(body))
    raise RecordingError("The WAV file has no samples. It is cut off or damaged.")


def _skip(source: Source, size: int) -> None:
    while size > 0 and (skipped := source.read(min(size, _SKIPPED_BYTES))):
        size -= len(skipped)


def _format(body: bytes) -> SampleFormat:
    if len(body) < 16:
        raise RecordingError("The format of the WAV file is cut off.")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        (code,) = struct.unpack_from("<H", body, 24)
    if (code, bits) not in _KINDS:
        raise RecordingError(
            f"The WAV file has samples of format {code} with {bits} bits. Send PCM of 8, 16, 24 or 32 bits, or 32-bit "
            "floats."
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise RecordingError(f"The WAV file says that it has {channels} channels. Send 1 to {_MAX_CHANNELS}.")
    if rate not in SAMPLE_RATES:
        raise RecordingError(
            f"The WAV file has {rate} samples a second. Send one of: {', '.join(map(str, SAMPLE_RATES))}."
        )
    return SampleFormat(rate=rate, channels=channels, sample_bytes=bits // 8, floats=code == _FLOAT)


def _packed(values: array[float] | array[int]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
