"""Audio of any accepted format becomes 16-bit PCM at 16 kHz: right in pitch and level, however it is cut."""

from __future__ import annotations

import math
import random
import struct
from array import array
from itertools import pairwise

import pytest
from session_support import float32, pcm16, tone

from daybreak.wire.sessions import SAMPLE_RATES
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.audio.files import read_recording
from daybreak_server.api.sessions.audio.formats import AudioFormat, Converter, Encoding


def numbers(data: bytes) -> list[int]:
    values = array("h")
    values.frombytes(data)
    return list(values)


def converted(data: bytes, form: AudioFormat, *, cuts: list[int] | None = None) -> bytes:
    converter = Converter(form)
    edges = [0, *(cuts or []), len(data)]
    parts = [converter.feed(data[a:b]) for a, b in pairwise(edges)]
    return b"".join((*parts, converter.finish()))


def level(values: list[int], hertz: float) -> float:
    """How loud a frequency is, from 0 to 1; the first and last tenth of a second do not count."""
    inner = values[1600:-1600]
    angle = 2 * math.pi * hertz / 16_000
    real = sum(v * math.cos(angle * n) for n, v in enumerate(inner))
    imaginary = sum(v * math.sin(angle * n) for n, v in enumerate(inner))
    return 2 * math.hypot(real, imaginary) / len(inner) / 32767


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_tone_keeps_its_pitch_level_and_length(rate):
    audio = pcm16(tone(1, rate=rate, hertz=1000, loud=0.5))
    values = numbers(converted(audio, AudioFormat(Encoding.PCM16, rate)))
    assert abs(len(values) - 16_000) <= 1
    assert level(values, 1000) == pytest.approx(0.5, abs=0.01)
    expected = numbers(pcm16(tone(1, hertz=1000, loud=0.5)))
    assert max(abs(a - b) for a, b in zip(values[1600:-1600], expected[1600:], strict=False)) < 330


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
def test_what_16_khz_cannot_carry_is_filtered_out(rate):
    """Without a filter, 10 kHz would come back as 6 kHz."""
    values = numbers(converted(pcm16(tone(1, rate=rate, hertz=10_000)), AudioFormat(Encoding.PCM16, rate)))
    assert level(values, 6000) < 0.001
    assert max(map(abs, values[1600:-1600])) < 100


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("encoding", [*Encoding])
def test_the_result_does_not_depend_on_where_frames_are_cut(rate, encoding):
    samples = [random.Random(1).uniform(-1, 1) for _ in range(2000)]
    data = pcm16(samples) if encoding is Encoding.PCM16 else float32(samples)
    form = AudioFormat(encoding, rate)
    draw = random.Random(2)
    cuts = sorted(draw.sample(range(len(data)), 50))
    assert converted(data, form, cuts=cuts) == converted(data, form)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_converter_that_begins_later_gives_the_same_samples(rate):
    form = AudioFormat(Encoding.PCM16, rate)
    data = pcm16([random.Random(3).uniform(-1, 1) for _ in range(rate)])
    whole = converted(data, form)
    for received in (0, 1, 777, 8000, 15_999):
        later = Converter(form, received=received)
        assert later.position <= received
        at = later.position
        rest = later.feed(data[later.send_from * 2 :]) + later.finish()
        assert rest[(received - at) * 2 :] == whole[received * 2 :]


def test_float_and_integer_samples_agree():
    samples = tone(0.1)
    assert converted(float32(samples), AudioFormat(Encoding.FLOAT32)) == pcm16(samples)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 8.01, -32768.0, 3e38])
def test_absurd_floats_are_refused_and_change_nothing(value):
    converter = Converter(AudioFormat(Encoding.FLOAT32, 24_000))
    good = float32(tone(0.1, rate=24_000))
    first = converter.feed(good[:1001])
    with pytest.raises(ApiError, match="Sample 7 of the frame") as caught:
        converter.feed(good[1001:1004] + float32([0.0] * 6 + [value]) + good[1004:])
    assert caught.value.code == "invalid_audio"
    rest = converter.feed(good[1001:]) + converter.finish()
    assert first + rest == converted(good, AudioFormat(Encoding.FLOAT32, 24_000))


def wav(
    data: bytes, *, code: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, extra: bytes = b""
) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0"  # a chunk of odd length, which is padded
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def read(data: bytes, name: str = "a.wav") -> bytes:
    recording = read_recording(data, name=name)
    converter = Converter(recording.format)
    return b"".join(converter.feed(piece) for piece in recording.pieces()) + converter.finish()


SAMPLES = [0.0, 0.25, -0.5, 0.75]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (pcm16(SAMPLES), {}),
        (bytes(128 + int(v * 128) for v in SAMPLES), {"bits": 8}),
        (b"".join(int(v * (1 << 23)).to_bytes(3, "little", signed=True) for v in SAMPLES), {"bits": 24}),
        (array("i", [int(v * (1 << 31)) for v in SAMPLES]).tobytes(), {"bits": 32}),
        (float32(SAMPLES), {"code": 3, "bits": 32}),
        (float32([v for s in SAMPLES for v in (s + 0.1, s - 0.1)]), {"code": 3, "bits": 32, "channels": 2}),
        (pcm16([v for s in SAMPLES for v in (s + 0.1, s - 0.1)]), {"channels": 2}),
        (pcm16(SAMPLES), {"code": 0xFFFE, "extra": struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)}),
    ],
    ids=["16", "8", "24", "32", "float", "float stereo", "16 stereo", "extensible"],
)
def test_wav_files_of_all_formats_are_read(data, options):
    values = numbers(read(wav(data, **options)))
    assert values == pytest.approx([32767 * v for v in SAMPLES], abs=2)


def test_a_wav_file_that_is_cut_off_gives_what_it_has():
    """The header may promise more audio than there is: programs that stream WAV write the largest possible size."""
    data = wav(pcm16(tone(1)))
    assert read(data[:-2000]) == pcm16(tone(1))[:-2000]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_file_that_was_written_into_a_pipe_is_read_to_its_end(size):
    """Its header does not say how long the audio is."""
    audio = pcm16(tone(1))
    data = wav(audio)
    at = data.index(b"data") + 4
    streamed = data[:at] + struct.pack("<I", size) + data[at + 4 :]
    assert read(streamed) == audio
    assert read_recording(streamed, name="a.wav").duration_s == 1


def test_raw_samples_are_read_by_the_name_of_their_file():
    assert read(pcm16(SAMPLES), "speech.PCM") == pcm16(SAMPLES)


@pytest.mark.parametrize(
    ("data", "name", "code", "message"),
    [
        (b"ID3\x03" + bytes(100), "speech.mp3", "unsupported_media_type", "ffmpeg"),
        (wav(b"", code=2), "a.wav", "invalid_audio", "format 2"),
        (wav(b"", rate=7999), "a.wav", "invalid_audio", "7999"),
        (wav(b"", channels=0), "a.wav", "invalid_audio", "0 channels"),
        (wav(b""), "a.wav", "invalid_audio", "no samples"),
        (b"\0", "a.pcm", "invalid_audio", "no samples"),
        (b"", "a.pcm", "invalid_audio", "no samples"),
        (wav(b"")[:30], "a.wav", "invalid_audio", "cut off"),
        (wav(b"")[:20], "a.wav", "invalid_audio", "cut off"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "a.wav", "invalid_audio", "no format"),
    ],
)
def test_other_files_are_refused_with_a_reason(data, name, code, message):
    with pytest.raises(ApiError, match=message) as caught:
        read(data, name)
    assert caught.value.code == code
