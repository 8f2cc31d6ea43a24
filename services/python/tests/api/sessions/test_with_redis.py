"""Tests of all APIs of sessions on the real store, with stand-ins for groups.

Clients do not notice when a session moves to another group.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
from api_support import Serving, make_settings
from session_support import Speech, float32, noise
from test_infinisst import floats, init
from test_recordings import wav

from daybreak import Client, Retry
from daybreak_server.adapters.redis.sessions.work import RedisSessionWork
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionsMeasured,
    Turn,
)
from testkit.session_memory import BLOCK, spoken, words
from testkit.valkey import Server
from testkit.waiting import wait_until


@dataclass
class Owned:
    claim: SessionClaim
    audio: bytearray
    consumed: int
    commits: int = 0
    multiplier: int = 1
    ended: bool = False


@dataclass
class Group:
    """A stand-in for a group. It writes a word for each block of audio."""

    work: RedisSessionWork
    stopping: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    multiplier: int = 1
    """The latency multiplier that the group's sessions get."""

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="group of a test")
        self.thread.start()

    def stop(self, *, release: bool = False) -> None:
        self.release = release
        self.stopping.set()
        self.thread.join(60)
        self.work.close()
        assert self.failure is None, self.failure

    release = False

    def _run(self) -> None:
        group, owned = new_group_id(), {}
        try:
            while not self.stopping.is_set():
                for claim in self.work.claim_sessions(group, room=100, wait_s=0.02):
                    start = claim.record.consumed
                    audio = bytearray(claim.audio[(start - claim.audio_start) * SAMPLE_BYTES :])
                    owned[claim.lease.session] = Owned(claim, audio, start, ended=claim.record.input_ended)
                self._step(owned)
                self.work.renew_sessions(
                    group, [o.claim.lease for o in owned.values()], measured=SessionsMeasured(room=100)
                )
            if self.release:
                self.work.release_sessions([o.claim.lease for o in owned.values()])
        except BaseException as exc:
            self.failure = exc

    def _step(self, owned: dict[SessionId, Owned]) -> None:
        positions = {o.claim.lease: o.consumed + len(o.audio) // SAMPLE_BYTES for o in owned.values()}
        if not positions:
            time.sleep(0.01)
            return
        for news in self.work.read_audio(positions, wait_s=0.02):
            if news.stale:
                owned.pop(news.session)
                continue
            owned[news.session].audio += news.audio
            owned[news.session].ended |= news.input_ended
        commits = [commit for o in owned.values() if (commit := self._commit(o)) is not None]
        commits += [self._degrade(o) for o in owned.values() if o.multiplier != self.multiplier]
        if commits:
            self.work.commit(commits)
        for commit in commits:
            if commit.end is not None:
                owned.pop(commit.lease.session, None)

    def _degrade(self, o: Owned) -> SessionCommit:
        o.commits += 1
        o.multiplier = self.multiplier
        data = {"latency_multiplier": o.multiplier, "lag_ms": 2345}
        return SessionCommit(
            lease=o.claim.lease,
            number=o.commits,
            events=((SessionEventType.DEGRADED, data),),
            latency_multiplier=o.multiplier,
        )

    @staticmethod
    def _commit(o: Owned) -> SessionCommit | None:
        size = BLOCK * SAMPLE_BYTES
        whole = len(o.audio) if o.ended else len(o.audio) - len(o.audio) % size
        if not whole and not o.ended:
            return None
        start, events = o.consumed, []
        for word in words(bytes(o.audio[:whole])):
            o.consumed = min(o.consumed + BLOCK, start + whole // SAMPLE_BYTES)
            events.append((SessionEventType.TEXT, {"text": word, "segment": 0, "audio_ms": o.consumed // 16}))
        del o.audio[:whole]
        o.commits += 1
        return SessionCommit(
            lease=o.claim.lease,
            number=o.commits,
            events=tuple(events),
            turn=Turn(start=start, end=o.consumed) if whole else None,
            keep_from=o.consumed,
            end=SessionEnd.FINISHED if o.ended else None,
        )


@pytest.fixture
def start_group(valkey: Server) -> Iterator[Callable[[], Group]]:
    groups: list[Group] = []

    def start() -> Group:
        groups.append(Group(RedisSessionWork(valkey.url, pool="speech", lease_s=30.0)))
        return groups[-1]

    yield start
    for group in groups:
        if group.thread.is_alive():
            group.stop()


@pytest.fixture
def speech(valkey: Server, tmp_path: Path) -> Iterator[Speech]:
    settings = make_settings(pools={"speech": {"workload": "simulated-speech"}})
    with ExitStack() as stack:
        api = stack.enter_context(Serving(valkey, tmp_path, 0, settings))
        yield Speech(api, store=None)  # type: ignore[arg-type]


def test_the_clients_socket_stays_open_while_groups_come_and_go(speech, start_group):
    audio = noise(6)
    with Client(speech.api.url, retry=Retry(attempts=1)) as client, client.sessions.open("German") as live:
        live.send(audio[:32_000])
        first = start_group()
        events = live.events()
        seen = [next(events) for _ in range(2)]
        first.stop(release=True)
        live.send(audio[32_000:96_000])
        wait_until(
            lambda: client.sessions.get(live.id).state == "waiting", 30, "the session to lose its group"
        )
        start_group()
        live.send(audio[96_000:])
        live.end()
        seen += events
    assert "".join(event.text for event in seen if event.type == "text") == spoken(audio)
    assert [event.data["attempt"] for event in seen if event.type == "started"] == [1, 2]
    assert seen[-1].data["reason"] == "finished"


def test_infinisst_openai_and_the_scheduler_on_the_real_store(speech, start_group):
    start_group()
    audio = noise(3)
    session = init(speech, language_pair="English -> German")["session_id"]
    with speech.socket(f"/wss/{session}") as socket:
        assert socket.text() == "READY"
        socket.send(float32(floats(audio)))
        early = socket.text()
        socket.send("EOF")
        messages, code = socket.rest()
    assert (early + "".join(messages[:-1]), messages[-1], code) == (
        spoken(audio),
        "PROCESSING_COMPLETE",
        1000,
    )
    with openai.OpenAI(base_url=f"{speech.api.url}/v1", api_key="none", max_retries=0) as client:
        text = client.audio.transcriptions.create(model="speech", file=wav(audio), language="en").text
        assert text == spoken(audio).strip()
    body = {"user_id": "u", "language_pair": "en-zh", "audio_data": floats(audio), "is_final": True}
    assert speech.client.post("/translate", json=body).json()["full_text"] == spoken(audio)


AUDIO = {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "transcription": {"language": "en"}}}
DIALECTS = {
    "transcription": {"session": {"type": "transcription", "audio": AUDIO}},
    "translation": {"session": {"type": "translation", "audio": {**AUDIO, "output": {"language": "de"}}}},
    "vllm": {"model": "speech"},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.filterwarnings(
    # OpenAI's client is written for websockets before 17.1.
    r"ignore:connect\(\) must be used:DeprecationWarning"
)
def test_each_step_of_a_group_that_lags_reaches_the_client_of_each_realtime_dialect(
    speech, start_group, dialect
):
    group, audio = start_group(), base64.b64encode(noise(1)).decode()
    prefix = "session." if dialect == "translation" else ""
    with (
        openai.OpenAI(base_url=f"{speech.api.url}/v1", api_key="none", max_retries=0) as client,
        client.realtime.connect(model="speech") as connection,
    ):
        connection.send({"type": "session.update", **DIALECTS[dialect]})
        for multiplier in (2, 1):
            connection.send({"type": f"{prefix}input_audio_buffer.append", "audio": audio})
            while not connection.recv().type.endswith(".delta"):
                continue  # a text shows that a group owns the session
            group.multiplier = multiplier
            while (event := connection.recv()).type != "session.degraded":
                continue
            assert (event.latency_multiplier, event.lag_ms) == (multiplier, 2345)
        connection.send({"type": f"{prefix}input_audio_buffer.append", "audio": audio})
        while not connection.recv().type.endswith(".delta"):
            continue  # OpenAI's client does not know `session.degraded`, and still receives texts after it


def test_a_session_is_listed_closed_and_unknown_to_others(speech):
    session = speech.open(target="zh")["id"]
    assert [s["id"] for s in speech.client.get("/v1/sessions").json()["data"]] == [session]
    assert speech.show(session)["state"] == "waiting"
    assert speech.client.delete(f"/v1/sessions/{session}").json()["end"] == "closed"
    with speech.stream(session) as socket:
        messages, code = socket.rest()
    assert (messages[-1]["data"]["reason"], code) == ("closed", 1000)
    with speech.stream(session, after=messages[-1]["id"]) as socket:
        assert [m["type"] for m in socket.rest()[0]] == ["ready"]
    assert speech.show("speech_01JD0000000000000000000000", status=404)["code"] == "not_found"
    assert "en -> French" in speech.open(target="French", status=422)["detail"]


def test_a_pool_with_as_many_sessions_as_it_may_have_refuses(valkey, tmp_path):
    pools = {"speech": {"workload": "simulated-speech", "sessions": {"max_sessions": 1}}}
    with Serving(valkey, tmp_path, 0, make_settings(pools=pools)) as api:
        speech = Speech(api, store=None)  # type: ignore[arg-type]
        speech.open()
        problem = speech.open(status=429)
    assert problem["code"] == "sessions_full"
    assert problem["retry_after_s"] >= 1
