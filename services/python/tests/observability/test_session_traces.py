"""A collector receives the traces of streaming sessions, from a gateway and from groups that run as processes."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from websockets.sync.client import connect

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.limits import SESSION_LOSSES_MAX
from daybreak_server.domain.sessions import SessionEventType, SessionId
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.session_log import SESSIONS
from daybreak_server.settings.tree import Settings
from testkit.otlp_collector import Collector, ReceivedSpan
from testkit.valkey import Server
from tests.engines.sessions.conftest import POOL, SpeechPool, noise, settings_of

TRACE, PARENT = "a" * 32, "b" * 16
CALLER = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
OPEN = {"target": "de"}


@pytest.fixture
def traced(valkey: Server, tmp_path: Path, collector: Collector) -> Callable[..., Settings]:
    """A function that returns settings for a pool of simulated speech. By default, they record every trace."""

    def make(*, tracing: dict[str, Any] | None = None, **pool: Any) -> Settings:
        # Leases last 15 s, so that the watchdog of a killed group can settle its sessions before their leases end,
        # even on a busy machine.
        lease = {"lease_s": 15}
        tree = settings_of(valkey, tmp_path, **{"lease": lease, **pool}).model_dump(
            mode="json", exclude_unset=True
        )
        every = {"enabled": True, "endpoint": collector.url, "sample_ratio": 1.0, "max_per_s": 1e6}
        return Settings.model_validate(tree | {"tracing": every | (tracing or {})})

    return make


def one_trace(collector: Collector, root: str) -> tuple[ReceivedSpan, list[ReceivedSpan]]:
    """The span that opened the session, and the others, which are its children."""
    [opened] = collector.wait(root)
    children = sorted(
        (span for span in collector.spans if span is not opened), key=lambda span: span.start_ns
    )
    assert {(span.trace, span.parent) for span in children} == {(opened.trace, opened.id)}
    return opened, children


async def until_owned(pool: SpeechPool, session: SessionId, attempt: int) -> str:
    """Wait until ``attempt`` groups have owned the session. Returns the last of them."""
    async with asyncio.timeout(60):
        while (
            record := await pool.store.session(session, tenant="default")
        ).attempt < attempt or not record.group:
            await asyncio.sleep(0.02)
    return str(record.group)


async def until_text(pool: SpeechPool, session: SessionId, attempt: int) -> None:
    """Wait until the group that owns the session in this attempt has written text."""
    started = False
    async with asyncio.timeout(60):
        async for event in pool.events.follow_session(session):
            started = started or event.data.get("attempt") == attempt
            if started and event.type is SessionEventType.TEXT:
                return


async def speak_until(pool: SpeechPool, session: SessionId, moved: asyncio.Event) -> None:
    """Speak in real time until the event is set, then end the audio."""
    chunk, sent = noise(0.1), 0
    while not moved.is_set():
        sent = (await pool.store.append_audio(session, chunk, at=sent)).received
        await asyncio.sleep(0.1)
    await pool.store.append_audio(session, b"", at=sent, end=True)


async def test_a_session_that_is_moved_by_a_kill_and_by_a_drain_has_one_connected_trace(
    traced: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    tmp_path: Path,
) -> None:
    settings = traced()
    client, pool = gateway(settings), SpeechPool(settings, tmp_path)
    try:
        first = await pool.start_group()
        response = await asyncio.to_thread(client.post, "/v1/sessions", json=OPEN)
        session = SessionId(response.json()["id"])
        groups = [await until_owned(pool, session, 1)]
        second = await pool.start_group()
        moved = asyncio.Event()
        speaking = asyncio.create_task(speak_until(pool, session, moved))
        await until_text(pool, session, 1)
        first.kill()
        groups.append(await until_owned(pool, session, 2))
        await until_text(pool, session, 2)
        await pool.start_group()
        second.ask_to_leave()
        groups.append(await until_owned(pool, session, 3))
        moved.set()
        await speaking
        text, _ = await pool.texts(session)
        await asyncio.to_thread(collector.wait, f"serve {POOL}", 2)
        await asyncio.to_thread(collector.wait, f"end {POOL}")
    finally:
        await pool.close()

    opened, children = one_trace(collector, "POST /v1/sessions")
    assert (opened.kind, opened.service, opened.parent) == ("SERVER", "daybreak-gateway", "")
    assert opened.attributes["http.response.status_code"] == 201
    context = f"00-{opened.trace}-{opened.id}-01"
    assert response.headers["traceparent"] == response.json()["traceparent"] == context
    assert {span.attributes["daybreak.session"] for span in (opened, *children)} == {session}
    waits = [span for span in children if span.name == f"wait {POOL}"]
    lost = [
        (span.attributes.get("daybreak.lost_group"), span.attributes.get("daybreak.lost_reason"))
        for span in waits
    ]
    assert lost == [(None, None), (groups[0], "left"), (groups[1], "released")]
    released, finished = (span for span in children if span.name == f"serve {POOL}")
    for span, attempt, outcome in ((released, 2, "released"), (finished, 3, "finished")):
        shown = span.attributes
        assert (span.service, shown["daybreak.group"], shown["daybreak.attempt"]) == (
            "daybreak-group",
            groups[attempt - 1],
            attempt,
        )
        assert (shown["daybreak.outcome"], span.failed) == (outcome, False)
        names = [name for name, _, _ in span.events]
        assert names.count("first_text") == 1
        assert 1 <= names.count("turns") <= 1 + shown["daybreak.turns"] // 16
    assert waits[1].end_ns <= released.start_ns <= released.end_ns <= finished.start_ns
    [end] = (span for span in children if span.name == f"end {POOL}")
    assert (end.attributes["daybreak.outcome"], end.attributes["daybreak.attempt"]) == ("finished", 3)
    assert len(children) == 6
    assert text.split()[0] not in repr(collector.spans)


def test_a_websocket_that_opens_a_session_continues_its_callers_trace(
    traced: Callable[..., Settings], gateway: Callable[[Settings], httpx2.Client], collector: Collector
) -> None:
    """The handshake's response and the session have the caller's trace, to which `sample_ratio` does not apply."""
    client = gateway(traced(tracing={"sample_ratio": 0.0}))
    url = str(client.base_url).replace("http", "ws", 1).rstrip("/") + "/v1/realtime"
    with connect(url, additional_headers={"traceparent": CALLER, "tracestate": "vendor=1"}) as socket:
        assert socket.response is not None
        returned = socket.response.headers["traceparent"]
        for message in (
            f'{{"type": "session.update", "model": "{POOL}", "target_language": "de"}}',
            f'{{"type": "input_audio_buffer.append", "audio": "{base64.b64encode(bytes(320)).decode()}"}}',
        ):
            socket.send(message)
        sessions: list[dict[str, Any]] = []
        while not sessions:
            sessions = client.get("/v1/sessions").json()["data"]
    collector.wait(f"end {POOL}")
    opened, [end] = one_trace(collector, "GET /v1/realtime")
    assert (opened.trace, opened.parent, opened.kind) == (TRACE, PARENT, "SERVER")
    assert [session["traceparent"] for session in sessions] == [returned] == [f"00-{TRACE}-{opened.id}-01"]
    assert opened.attributes["daybreak.session"] == sessions[0]["id"] == end.attributes["daybreak.session"]
    assert end.attributes["daybreak.outcome"] == "closed"


async def test_a_session_that_the_watchdog_of_a_killed_group_ends_has_an_end(
    traced: Callable[..., Settings], collector: Collector, tmp_path: Path
) -> None:
    """The session has lost as many groups as it may lose. One more group dies while its model works on the session."""
    settings = traced(options={"prefill_ms": 60_000})
    pool = SpeechPool(settings, tmp_path)
    try:
        group = await pool.start_group()
        session = await pool.open(trace_context=TraceContext(traceparent=CALLER))
        await pool.store.append_audio(session, noise(0.6), at=0)
        owner = await until_owned(pool, session, 1)
        keys = Keys(prefix=settings.redis.prefix, pool=POOL)
        with redis.Redis.from_url(str(settings.redis.url)) as client:
            client.hset(keys.of("session", session), "losses", SESSION_LOSSES_MAX)
            async with asyncio.timeout(60):
                while b'"sessions": 1' not in (client.hget(keys.of("group", owner), "load") or b""):
                    await asyncio.sleep(0.05)
        group.kill()
        [end] = await asyncio.to_thread(collector.wait, f"end {POOL}")
    finally:
        await pool.close()
    assert (end.trace, end.parent, end.service) == (TRACE, PARENT, "daybreak-group")
    assert (end.attributes["daybreak.session"], end.attributes["daybreak.outcome"]) == (session, "failed")
    assert (end.failed, end.attributes["error.type"]) == (True, "groups_lost")


@pytest.mark.parametrize("path", ["/v1/sessions", "/init", "/translate"])
def test_every_way_to_open_a_session_by_a_request_continues_its_callers_trace(
    traced: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    path: str,
) -> None:
    client = gateway(traced())
    pair = {"language_pair": "English -> German"}
    body = {"/v1/sessions": OPEN, "/init": pair, "/translate": {"user_id": "u", "audio_data": [], **pair}}[
        path
    ]
    response = client.post(path, json=body, headers={"traceparent": CALLER})
    [opened] = collector.wait(f"POST {path}")
    assert (opened.trace, opened.parent) == (TRACE, PARENT)
    assert response.headers["traceparent"] == f"00-{TRACE}-{opened.id}-01", response.text
    [session] = client.get("/v1/sessions").json()["data"]
    assert session["traceparent"] == response.headers["traceparent"]


def test_a_reset_begins_another_trace_for_the_new_session(
    traced: Callable[..., Settings], gateway: Callable[[Settings], httpx2.Client], collector: Collector
) -> None:
    """The end of the old session is in the old session's trace. The new session continues the trace of the caller."""
    client = gateway(traced())
    old = client.post("/init", json={"language_pair": "English -> German"})
    body = {"session_id": old.json()["session_id"]}
    new = client.post("/reset_translation", json=body, headers={"traceparent": CALLER})
    [opened], [end] = collector.wait("POST /reset_translation"), collector.wait(f"end {POOL}")
    assert (opened.trace, opened.parent) == (TRACE, PARENT)
    assert new.headers["traceparent"] == f"00-{TRACE}-{opened.id}-01"
    assert opened.attributes["daybreak.session"] == new.json()["session_id"]
    [session] = client.get("/v1/sessions").json()["data"]
    assert (session["id"], session["traceparent"]) == (new.json()["session_id"], new.headers["traceparent"])
    assert end.attributes["daybreak.session"] == body["session_id"]
    assert f"00-{end.trace}-{end.parent}-01" == old.headers["traceparent"]


@pytest.mark.parametrize("path", ["/v1/audio/translations", "/v1/audio/transcriptions"])
def test_a_recording_continues_its_callers_trace_to_the_end_of_its_session(
    traced: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    path: str,
) -> None:
    """The client disconnects before the text arrives. This ends the session."""
    client = gateway(traced())
    recording = io.BytesIO()
    with wave.open(recording, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise(0.5))
    form = {"model": POOL, "stream": "true"}
    if path == "/v1/audio/translations":
        form["target_language"] = "de"
    files = {"file": ("speech.wav", recording.getvalue(), "audio/wav")}
    headers = {"traceparent": CALLER}
    with client.stream("POST", path, data=form, files=files, headers=headers) as response:
        returned = response.headers["traceparent"]
    collector.wait(f"end {POOL}")
    opened, [end] = one_trace(collector, f"POST {path}")
    assert (opened.parent, returned) == (PARENT, f"00-{TRACE}-{opened.id}-01")
    assert end.attributes["daybreak.outcome"] == "closed"


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """The log lines about changes of sessions."""
    found: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger(SESSIONS)
    handler.emit = found.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("limit", ["pool", "tenant"])
def test_a_session_that_is_refused_has_a_trace_and_a_line_that_say_so(
    traced: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    lines: list[logging.LogRecord],
    limit: str,
) -> None:
    settings = traced(sessions={"max_sessions": 1 if limit == "pool" else 9})
    if limit == "tenant":
        settings = Settings.model_validate(
            settings.model_dump(mode="json", exclude_unset=True) | {"http": {"max_sessions_per_tenant": 1}}
        )
    client = gateway(settings)
    client.post("/v1/sessions", json=OPEN)
    refused = client.post("/v1/sessions", json=OPEN, headers={"traceparent": CALLER})
    assert refused.status_code == 429
    spans = collector.wait("POST /v1/sessions", 2)
    [span] = [span for span in spans if span.trace == TRACE]
    assert refused.headers["traceparent"] == f"00-{TRACE}-{span.id}-01"
    code = {"pool": "sessions_full", "tenant": "too_many_streams"}[limit]
    assert (span.attributes["daybreak.outcome"], span.failed) == (code, False)
    logged = [(line.__dict__["change"], line.__dict__.get("reason")) for line in lines]
    assert logged == [("opened", None), ("refused", {"pool": "limit", "tenant": "tenant_limit"}[limit])]
    assert [line.__dict__["trace_id"] for line in lines] == [
        next(other.trace for other in spans if other is not span),
        TRACE,
    ]


def test_a_repeated_open_returns_the_trace_of_its_session(
    traced: Callable[..., Settings], gateway: Callable[[Settings], httpx2.Client], collector: Collector
) -> None:
    """The span of the repeated request links to the session's trace."""
    client = gateway(traced())
    first = client.post("/v1/sessions", json=OPEN, headers={"Idempotency-Key": "k"})
    second = client.post("/v1/sessions", json=OPEN, headers={"Idempotency-Key": "k", "traceparent": CALLER})
    assert (second.json()["id"], second.headers["traceparent"]) == (
        first.json()["id"],
        first.headers["traceparent"],
    )
    spans = collector.wait("POST /v1/sessions", 2)
    [original], [repeat] = (
        [span for span in spans if (span.trace == TRACE) is repeated] for repeated in (False, True)
    )
    assert (repeat.links, repeat.attributes["daybreak.repeated"]) == ([(original.trace, original.id)], True)


@pytest.mark.parametrize(
    ("tracing", "caller"),
    [({"sample_ratio": 0.0}, None), ({"sample_ratio": 1.0}, UNSAMPLED), ({"enabled": False}, CALLER)],
    ids=["not drawn", "the caller does not sample", "tracing is off"],
)
def test_a_session_that_is_not_sampled_carries_the_callers_context(
    traced: Callable[..., Settings],
    gateway: Callable[[Settings], httpx2.Client],
    collector: Collector,
    tracing: dict[str, Any],
    caller: str | None,
) -> None:
    client = gateway(traced(tracing=tracing))
    response = client.post("/v1/sessions", json=OPEN, headers={"traceparent": caller} if caller else {})
    session = response.json()
    assert response.headers.get("traceparent") == session.get("traceparent") == caller
    assert client.delete(f"/v1/sessions/{session['id']}").json().get("traceparent") == caller
    # If the first session had spans, they would arrive before those of the second session.
    if tracing.get("enabled", True):
        client.post("/v1/sessions", json=OPEN, headers={"traceparent": f"00-{'c' * 32}-{PARENT}-01"})
        collector.wait("POST /v1/sessions")
    assert {span.trace for span in collector.spans} <= {"c" * 32}
