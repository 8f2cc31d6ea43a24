"""Converts the frames of a client, in any accepted format, into the audio of a journal (16-bit PCM at 16 kHz).

A :class:`Converter` belongs to one connection. Between frames, it keeps an incomplete sample and the input
that the resampler still needs. A refused frame changes nothing, so the next frame begins at the same
position.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak.wire import ErrorCode
from daybreak.wire.sessions import SAMPLE_RATES
from daybreak_server.api.errors import ApiError, invalid_field
from daybreak_server.api.sessions.audio.resampling import Resampler, ratio, warm_up
from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE

_FULL_SCALE = 32767
_LOUDEST_PCM16 = 32768
_LOUDEST = 8.0
"""A larger float is not a loud sample, but a value of another format."""


class Encoding(StrEnum):
    """How a sample is encoded."""

    PCM16 = "pcm16"
    FLOAT32 = "float32"

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return 2 if self is Encoding.PCM16 else 4


_ALIASES = {"s16le": Encoding.PCM16, "int16": Encoding.PCM16, "f32le": Encoding.FLOAT32}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of a client's audio."""

    encoding: Encoding = Encoding.PCM16
    rate: int = SAMPLE_RATE

    @classmethod
    def parse(cls, encoding: str | None, rate: str | int | None) -> AudioFormat:
        """The format that a client names. :raises ApiError: ``invalid_input``."""
        named = (encoding or Encoding.PCM16).lower()
        try:
            found = _ALIASES.get(named) or Encoding(named)
        except ValueError:
            raise invalid_field(
                "encoding", f"{named[:40]!r} is not a supported encoding. Use pcm16 or float32."
            ) from None
        text = str(SAMPLE_RATE if rate in (None, "") else rate)
        if not (text.isascii() and text.isdecimal() and len(text) < 7 and int(text) in SAMPLE_RATES):
            rates = ", ".join(map(str, SAMPLE_RATES))
            raise invalid_field(
                "sample_rate", f"{text[:40]!r} is not a supported sample rate. Use one of: {rates}."
            )
        return cls(found, int(text))

    def position(self, received: int) -> int:
        """The number of the first sample that a client must send, if the journal has ``received`` samples. The number
        counts samples at the client's rate.

        The server never needs earlier audio again. A resampler that begins at this sample gives the same samples from
        ``received`` on as one that began with the first sample of the audio.
        """
        up, down = ratio(self.rate)
        return max(0, received // up - warm_up(self.rate)) * down


def invalid_audio(message: str) -> ApiError:
    """The error for a frame whose audio cannot be used."""
    return ApiError(ErrorCode.INVALID_AUDIO, message)


class Converter:
    """Converts the frames of one connection. ``position`` is the position that the next output sample gets in the
    journal."""

    def __init__(self, form: AudioFormat, *, received: int = 0) -> None:
        self.format = form
        self.send_from = form.position(received)
        up, down = ratio(form.rate)
        self.position = self.send_from // down * up
        self._rest = b""
        self._resampler = None if form.rate == SAMPLE_RATE else Resampler(form.rate, start=self.send_from)

    def feed(self, frame: bytes) -> bytes:
        """The audio that the frame completes. :raises ApiError: ``invalid_audio``; this error leaves the
        converter unchanged."""
        data = self._rest + frame if self._rest else frame
        whole = len(data) - len(data) % self.format.encoding.size
        if self.format.encoding is Encoding.PCM16:
            output = data[:whole] if self._resampler is None else self._resampled(_array("h", data[:whole]))
        else:
            scaled = _scaled(_array("f", data[:whole]))
            output = _packed(scaled) if self._resampler is None else self._resampled(scaled)
        self._rest = data[whole:]
        self.position += len(output) // SAMPLE_BYTES
        return bytes(output)

    def check(self, frame: bytes) -> None:
        """Check a whole frame before it is fed in parts. :raises ApiError: ``invalid_audio``."""
        if self.format.encoding is Encoding.FLOAT32:
            data = self._rest + frame
            _scaled(_array("f", data[: len(data) - len(data) % self.format.encoding.size]))

    def finish(self) -> bytes:
        """The last samples, which the resampler has held back. An incomplete sample at the end is dropped."""
        output = b"" if self._resampler is None else _packed(self._resampler.finish())
        self.position += len(output) // SAMPLE_BYTES
        return output

    def _resampled(self, samples: Sequence[float]) -> bytes:
        assert self._resampler is not None
        return _packed(self._resampler.push(samples))


def _array(kind: str, data: bytes) -> array[float]:
    values: array[float] = array(kind)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _packed(samples: Sequence[float]) -> bytes:
    """Samples as 16-bit PCM. Samples that are too loud are clipped."""
    rounded = array("h", [max(-32768, min(32767, round(value))) for value in samples])
    if sys.byteorder == "big":
        rounded.byteswap()
    return rounded.tobytes()


def _scaled(values: Sequence[float]) -> list[float]:
    """Scale floats from -1..1 to the range of 16-bit samples. :raises ApiError: ``invalid_audio``."""
    if values and not (math.isfinite(sum(values)) and min(values) >= -_LOUDEST and max(values) <= _LOUDEST):
        index = next(i for i, v in enumerate(values) if not (math.isfinite(v) and abs(v) <= _LOUDEST))
        raise invalid_audio(_why(index, values[index]))
    return [_FULL_SCALE * value for value in values]


def _why(index: int, value: float) -> str:
    if not math.isfinite(value):
        return f"Sample {index} of the frame is {value}. Send finite numbers from -1 to 1."
    hint = " Are these 16-bit samples? Send them with encoding=pcm16." if abs(value) <= _LOUDEST_PCM16 else ""
    return f"Sample {index} of the frame is {value:g}. Samples of float32 lie between -1 and 1.{hint}"
