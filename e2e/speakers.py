"""Clients that send noise to sessions of the simulated model, at the speed of speech, until a test stops them.

A speaker has one connection and never replaces it. Its records have the same form as those of the clients in the fault
tests, so that the same checker decides whether audio or text was lost.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from testkit.kubernetes.waiting import wait_until
from testkit.log import log
from verification.faults.history import Line
from verification.faults.sessions.checker import check, gather
from verification.faults.sessions.speech import expected_text

FRAME_S = 0.1
_FRAME_SAMPLES = 1600
_SAMPLE_BYTES = 2
TARGET = "de"


class Speaker:
    """A client with one session. It sends audio from the start, even while the session waits for a group."""

    def __init__(self, url: str, pool: str, number: int) -> None:
        wish = {"pool": pool, "target": TARGET, "client": f"speaker {number}"}
        answer = httpx2.post(f"{url}/v1/sessions", json=wish, timeout=30)
        assert answer.status_code == 201, answer.text
        self.session: str = answer.json()["id"]
        self.opened_as: str = answer.json()["state"]
        self.lines: list[Line] = []
        self._began = time.monotonic()
        self._random = random.Random(number)
        self._audio = bytearray()
        self._stopped = threading.Event()
        stream = f"{url.replace('http', 'ws', 1)}/v1/sessions/{self.session}/stream"
        self._socket = connect(stream, proxy=None, open_timeout=30, max_size=None)
        self._threads = [threading.Thread(target=act, daemon=True) for act in (self._speak, self._listen)]
        for thread in self._threads:
            thread.start()

    # ── what it has seen ─────────────────────────────────────────────────────────────────────────────────

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        """The data of the session's events of one type."""
        return [line["data"] for line in self.lines if line["op"] == "event" and line["type"] == kind]

    @property
    def text(self) -> str:
        """The session's text so far."""
        return "".join(data["text"] for data in self.events("text"))

    @property
    def group(self) -> str | None:
        """The group that started or continued the session last."""
        started = self.events("started")
        return str(started[-1]["group"]) if started else None

    @property
    def attempts(self) -> int:
        """How many times a group has started or continued the session."""
        return len(self.events("started"))

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._socket.close_code is None

    def assert_exact(self) -> None:
        """Assert that the text so far is that of a session without faults: nothing is missing or repeated."""
        # Read the text before the audio. In the other order, the text could cover audio that was sent in between.
        text = self.text
        wanted = expected_text(bytes(self._audio), TARGET)
        assert wanted.startswith(text), f"{self.session} has written {text!r} instead of {wanted!r}"

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """End the input, and wait for the end of the session."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), f"{self.session} has not ended"
        assert self._socket.close_code == 1000, f"{self.session}: {self._socket.close_code}"

    def history(self) -> list[Line]:
        """Everything that the client of an ended session saw, for the checker."""
        text = expected_text(bytes(self._audio), TARGET)
        begin = {"op": "session", "kind": "begin", "text": text, "reason": "finished", "absurd": 0}
        return [{**begin, "session": self.session}, *self.lines]

    def _speak(self) -> None:
        try:
            while not self._stopped.is_set():
                self._audio += self._random.randbytes(_FRAME_SAMPLES * _SAMPLE_BYTES)
                spoken_s = len(self._audio) / _SAMPLE_BYTES / _FRAME_SAMPLES * FRAME_S
                time.sleep(max(0.0, self._began + spoken_s - time.monotonic()))
                self._note("sent", upto=len(self._audio) // _SAMPLE_BYTES)
                self._socket.send(self._audio[-_FRAME_SAMPLES * _SAMPLE_BYTES :])
            self._socket.send(json.dumps({"type": "end"}))
        except ConnectionClosed:
            pass  # `_listen` also sees that the connection is closed

    def _listen(self) -> None:
        try:
            for text in self._socket:
                message = json.loads(text)
                match message["type"]:
                    case "ready" | "received" as kind:
                        self._note(kind, send_from=message["send_from"])
                    case "error":
                        self._note("error", code=message["code"], fatal=message["fatal"])
                    case kind:
                        self._note("event", id=message["id"], type=kind, data=message["data"])
        except ConnectionClosed as exc:
            self._note("broken", reason=str(exc))

    def _note(self, op: str, **fields: Any) -> None:
        at = time.monotonic() - self._began
        self.lines.append({"op": op, "kind": "saw", "session": self.session, "t": at, **fields})


class Audience:
    """The speakers of a pool."""

    def __init__(self, url: str, pool: str) -> None:
        self._url = url
        self._pool = pool
        self.all: list[Speaker] = []
        """The speakers whose sessions are open."""
        self._ended: list[Speaker] = []

    def grow(self, count: int) -> Sequence[Speaker]:
        """Open sessions until ``count`` are open. :returns: the new ones."""
        first = len(self.all) + len(self._ended)
        new = [Speaker(self._url, self._pool, first + number) for number in range(count - len(self.all))]
        self.all += new
        return new

    def by_group(self) -> dict[str, list[Speaker]]:
        """The speakers of each group. The group with the most speakers is first."""
        found: dict[str, list[Speaker]] = defaultdict(list)
        for speaker in self.all:
            if speaker.group is not None:
                found[speaker.group].append(speaker)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def wait_for_texts(self, speakers: Sequence[Speaker], more: int, *, timeout_s: float, what: str) -> None:
        """Wait until each of these speakers has ``more`` further pieces of text. All connections must stay open."""
        wanted = {speaker: len(speaker.events("text")) + more for speaker in speakers}

        def all_have() -> bool:
            assert all(speaker.connected for speaker in self.all), "a connection broke"
            return all(len(speaker.events("text")) >= count for speaker, count in wanted.items())

        wait_until(all_have, timeout_s=timeout_s, what=what)

    def stop(self, speakers: Sequence[Speaker]) -> None:
        """End these sessions."""
        for speaker in speakers:
            speaker.stop()
            self.all.remove(speaker)
            self._ended.append(speaker)

    def close(self) -> None:
        """End all sessions, and assert that no speaker missed text or got text twice. The check includes the
        speakers that :meth:`stop` has stopped earlier."""
        self.stop(list(self.all))
        if not self._ended:
            return
        lines = [line for speaker in self._ended for line in speaker.history()]
        verdict = check([*lines, {"op": "load", "kind": "end"}])
        assert verdict.ok, verdict.text()
        seen = gather(lines).sessions.values()
        log(f"  {len(seen)} sessions, {sum(len(session.text) for session in seen)} letters, all as expected")
