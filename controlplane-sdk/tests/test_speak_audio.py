"""``daybreak speak`` reads the same kinds of recordings as the server, from files and through a pipe."""

from __future__ import annotations

import io
import struct
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daybreak.cli.audio import Audio, open_audio
from daybreak.cli.exit_codes import UsageError, exit_code
from daybreak.cli.output import Output
from daybreak.cli.speak import _translate
from daybreak.errors import ArgumentError

PCM = array("h", [0, 8191, -16384, 24575] * 1000).tobytes()


def wav(data: bytes, *, code: int = 1, channels: int = 1, bits: int = 16, size: int | None = None) -> bytes:
    """A WAV file whose header says that the samples have ``size`` bytes. By default, this is their true size."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, 16_000, 16_000 * block, block, bits)
    size = len(data) if size is None else size
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def opened(name: str | None, *, encoding: str = "pcm16", rate: int = 16_000) -> Audio:
    return open_audio(name, rate=rate, encoding=encoding, stopped=lambda: False)


def values(audio: Audio) -> list[float]:
    found = array("f" if audio.encoding == "float32" else "h", b"".join(audio.pieces))
    return [value * (32767 if audio.encoding == "float32" else 1) for value in found]


@pytest.mark.parametrize(
    "data",
    [
        wav(bytes(128 + (v >> 8) for v in array("h", PCM)), bits=8),
        wav(b"".join((v << 8).to_bytes(3, "little", signed=True) for v in array("h", PCM)), bits=24),
        wav(array("i", [v << 16 for v in array("h", PCM)]).tobytes(), bits=32),
        wav(array("f", [v / 32767 for v in array("h", PCM)]).tobytes(), code=3, bits=32),
        wav(array("h", [v for s in array("h", PCM) for v in (s + 9, s - 9)]).tobytes(), channels=2),
        wav(PCM, size=0),
        wav(PCM, size=0xFFFFFFFF),
    ],
    ids=["8", "24", "32", "float", "stereo", "of a pipe, size 0", "of a pipe, largest size"],
)
def test_files_and_pipes_of_all_kinds_are_read(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))
    for name in (str(tmp_path / "a.wav"), "-"):
        audio = opened(name)
        assert audio.sample_rate == 16_000
        assert values(audio) == pytest.approx(list(array("h", PCM)), abs=256)


def test_raw_samples_come_from_stdin_and_from_files_with_their_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(PCM)))
    assert b"".join(opened("-").pieces) == PCM
    (tmp_path / "a.raw").write_bytes(PCM)
    audio = opened(str(tmp_path / "a.raw"), encoding="float32", rate=48_000)
    assert (audio.encoding, audio.sample_rate, b"".join(audio.pieces)) == ("float32", 48_000, PCM)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", wav(b""), "is empty"),
        ("a.pcm", b"", "is empty"),
        ("a.pcm", b"\0", "is empty"),
        ("a.mp3", b"ID3" + bytes(100), "ffmpeg"),
        ("a.wav", wav(PCM, code=2), "format 2"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        opened(str(tmp_path / name))
    assert exit_code(caught.value) == 2


def test_options_of_samples_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ArgumentError, match="mp3"):
        opened("-", encoding="mp3")
    with pytest.raises(ArgumentError, match="is not a sample rate"):
        opened("-", rate=0)


def test_the_microphone_is_closed_before_the_command_ends() -> None:
    """Otherwise Python may exit while another thread is inside PortAudio, and hang."""
    stopped, opened_it, closed = threading.Event(), threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        opened_it.set()
        try:
            while True:
                yield b"\0\0"
                time.sleep(0.01)
        finally:
            time.sleep(0.2)
            closed.set()

    def events() -> Iterator[Any]:
        opened_it.wait(60)
        yield from ()

    live = SimpleNamespace(events=events, send=lambda piece, pace: None, end=lambda: None)
    audio = Audio(pieces=pieces(), sample_rate=16_000, live=True)
    _translate(cast("Any", live), audio, Output(as_json=True), stopped, pace=False)
    assert closed.is_set()
