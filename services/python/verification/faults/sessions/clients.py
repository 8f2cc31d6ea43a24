"""Tests the promises with difficult clients: many at once, silent ones, and clients that send absurd audio."""

from __future__ import annotations

import asyncio
import json
import math
from array import array

from websockets.asyncio.client import connect

from daybreak_server.domain.sessions import SAMPLE_RATE
from testkit.waiting import wait_until
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.sessions.client import FRAME_S, Script
from verification.faults.sessions.losses import scripts
from verification.faults.sessions.trial import (
    CHUNK_S,
    POOL,
    READY_S,
    SessionTrial,
    gap_row,
    text_row,
    trial,
)
from verification.results import Row

TIMEOUT_S = 3.0


@scenario("sessions-many", "50 clients speak at once, and a group is killed")
def run_many(context: ScenarioContext) -> list[Row]:
    """Kill one of two groups. All sessions of the killed group fit into the other one."""
    clients = context.repeats(50, 100)
    with trial(context, scripts(clients, 6.0), groups=2, watchdogs=True) as run:
        run.clients.wait_for_texts(2)
        run.cluster.kill(run.busiest())
        seen = run.decide()
    return [
        text_row("Many sessions", seen, faults=f"sessions at once: {clients}; groups killed: 1"),
        gap_row("Many sessions", seen, limit_s=2 + CHUNK_S, bound=f"2 s + one chunk of {CHUNK_S:g} s"),
    ]


@scenario("sessions-silent", "the sessions of silent clients end, and other clients get the places")
def run_silent(context: ScenarioContext) -> list[Row]:
    """The group has exactly as many places as there are silent clients. The other clients wait until the sessions of
    the silent clients have ended as idle."""
    count = context.repeats(3, 30)
    silent = [Script(number=number, seconds=60.0, silent_after_s=1.0) for number in range(count)]
    late = [Script(number=count + number, seconds=9.0) for number in range(count)]
    limits = {"session_timeout_s": TIMEOUT_S}
    with trial(context, [*silent, *late], groups=1, model={"max_sessions": count}, sessions=limits) as run:
        seen = run.decide()
        wait_until(lambda: not _left(run), READY_S, f"the journals to be empty: {_left(run)}")
    idle = sum(session.begin["reason"] == "idle" for session in seen.sessions.values())
    return [
        text_row(
            "Silent clients",
            seen,
            faults=f"sessions that ended as idle after their clients fell silent: {idle}",
        )
    ]


def _left(run: SessionTrial) -> list[str]:
    """The keys that still hold audio or turns of a session, or the sessions of a group."""
    keys = run.cluster.keys(POOL)
    with run.cluster.client() as client:
        patterns = [keys.of(kind, "*") for kind in ("session_audio", "session_turns", "group_sessions")]
        return [name for pattern in patterns for name in client.scan_iter(match=pattern, count=1000)]


@scenario(
    "sessions-absurd",
    "absurd audio is refused with a message that names the cause, and its session continues",
)
def run_absurd(context: ScenarioContext) -> list[Row]:
    """Send NaN, infinities, floats far outside -1 to 1, frames that end within a sample, frames that are too large,
    and wrong rates."""
    size = int(FRAME_S * SAMPLE_RATE)
    nonsense = {5: math.nan, 9: math.inf, 13: -math.inf, 17: 20_000.0, 21: 3e38}
    absurd = {at: array("f", [*[0.25] * (size - 1), value]).tobytes() for at, value in nonsense.items()}
    speakers = [
        Script(number=0, seconds=5.03, encoding="float32", absurd=absurd),
        Script(number=1, seconds=5.03, frame_bytes=3201),
        Script(number=2, seconds=5.03, encoding="float32", frame_bytes=6397),
        Script(number=3, seconds=5.03, huge=11),
    ]
    with trial(context, speakers, groups=1) as run:
        run.clients.wait_for_texts(2)
        refused = asyncio.run(_wrong_streams(run, run.clients.all[1].session))
        seen = run.decide()
    closes = [line["code"] for session in seen.sessions.values() for line in session.of("closed")]
    if 1009 not in closes:
        raise ViolatedError(f"the frame of 2 MiB was not refused with 1009: connections closed with {closes}")
    return [
        text_row(
            "Absurd audio",
            seen,
            faults=f"frames refused for their values: {len(absurd)}; streams refused: {refused}; frames too large: 1",
        )
    ]


async def _wrong_streams(run: SessionTrial, session: str) -> int:
    """Connect with wrong parameters.

    :returns: The number of connections.
    :raises ViolatedError: unless each refusal names the wrong parameter.
    """
    wrong = {"sample_rate=16001": "sample_rate", "sample_rate=-1": "sample_rate", "encoding=mp3": "encoding"}
    base = run.cluster.urls[0].replace("http", "ws", 1)
    for query, name in wrong.items():
        async with connect(f"{base}/v1/sessions/{session}/stream?{query}", proxy=None) as socket:
            message = json.loads(await socket.recv())
            await socket.wait_closed()
        if socket.close_code != 4400 or name not in message.get("message", ""):
            raise ViolatedError(f"{query} was answered with {message} and closed with {socket.close_code}")
    return len(wrong)
