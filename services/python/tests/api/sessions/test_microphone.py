"""``daybreak speak`` with a microphone: PortAudio records from an ALSA device that reads a named pipe."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import signal
import subprocess
import threading

import pytest
from session_support import noise
from test_sdk import command

from testkit.session_memory import spoken
from testkit.waiting import wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sounddevice") is None or ctypes.util.find_library("portaudio") is None,
    reason="PortAudio or sounddevice is not installed",
)
SAMPLE_BYTES = 2
PIECE_BYTES = 1600 * SAMPLE_BYTES
DEVICES = """
pcm.nothing { type null }
pcm.pipe { type file slave.pcm "nothing" file "/dev/null" infile "PIPE" format "raw" }
pcm.!default { type plug slave.pcm "pipe" }
"""


def _speak(pipe: int, audio: bytes, ended: threading.Event) -> None:
    """Write the audio and then silence, in real time."""
    while not ended.wait(0.1):
        os.write(pipe, audio[:PIECE_BYTES].ljust(PIECE_BYTES, b"\0"))
        audio = audio[PIECE_BYTES:]


def test_the_command_translates_what_the_microphone_hears(speech, tmp_path):
    audio, path, ended = noise(2), tmp_path / "microphone", threading.Event()
    os.mkfifo(path)
    # PortAudio first opens and closes each device. The pipe is opened for reading too, so that it always has a reader.
    pipe = os.open(path, os.O_RDWR)
    (tmp_path / ".asoundrc").write_text(DEVICES.replace("PIPE", str(path)))
    speaker = threading.Thread(target=_speak, args=(pipe, audio, ended))
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    environ = os.environ | {"HOME": str(tmp_path)}
    with subprocess.Popen(command(speech, "--to", "de"), env=environ, **pipes) as process:
        try:
            wait_until(speech.store.all, 60, "a session")
            speaker.start()
            samples = len(audio) // SAMPLE_BYTES
            wait_until(lambda: speech.store.all()[0].received >= samples, 60, "the audio")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            ended.set()
            process.kill()
    speaker.join(60)
    os.close(pipe)
    assert process.returncode == 0, errors.decode()
    recorded = speech.store.audio(speech.store.all()[0].session.id)
    assert recorded.startswith(audio)
    assert "".join(output.decode().splitlines()) == spoken(recorded)
