"""Audio for sessions, and the text that the simulated model writes for it if there is no fault."""

from __future__ import annotations

import random
from array import array

from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE
from daybreak_server.workloads.sessions import Prefill, SessionFailedError, Token
from daybreak_server.workloads.simulated_speech.model import SimulatedSpeech
from daybreak_server.workloads.simulated_speech.spec import PAIRS


def noise(seconds: float, *, seed: str) -> bytes:
    """16-bit samples that differ for each seed."""
    return random.Random(seed).randbytes(int(seconds * SAMPLE_RATE) * SAMPLE_BYTES)


def float32(pcm: bytes) -> bytes:
    """The samples as 32-bit floats. When the server converts them back to 16 bits, it gets exactly the same samples."""
    return array("f", [value / 32767 for value in array("h", pcm)]).tobytes()


def expected_text(audio: bytes, target: str) -> str:
    """The text of a session that the model serves alone, in turns of one block."""
    model = SimulatedSpeech(sleep=lambda _: None)
    model.open("s", next(pair for pair in PAIRS if pair.target == target))
    size = model.shape.block_samples * SAMPLE_BYTES
    pieces = [audio[at : at + size] for at in range(0, len(audio), size)] or [b""]
    words: list[str] = []
    for number, piece in enumerate(pieces, start=1):
        token = _token(model.prefill([Prefill(session="s", audio=piece, last=number == len(pieces))])[0])
        while token.token is not None:
            words.append(token.text)
            token = _token(model.decode(["s"])[0])
    return "".join(words)


def _token(result: Token | SessionFailedError) -> Token:
    if isinstance(result, SessionFailedError):
        raise result
    return result
