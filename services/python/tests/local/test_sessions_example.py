"""Runs the example workload for sessions and the example strategy. Settings alone select both, as the tour says."""

from __future__ import annotations

import urllib.error
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from daybreak import Client, InvalidInputError
from testkit.system import System, request
from testkit.waiting import wait_until

EXAMPLES = Path(__file__).parents[4] / "examples"
SECOND = b"\x00\x40" * 8_000 + bytes(16_000)
"""One second of audio: half a second of loud sound, and half a second of silence."""


USERS = 6


def written(client: Client, seconds: int) -> str:
    """The whole text of a session with this many seconds of audio."""
    with client.sessions.open("English", pool="loudness") as live:
        live.send(SECOND * seconds)
        live.end()
        return "".join(event.text for event in live if event.type == "text")


def begun(system: System) -> Counter[int]:
    """How many batches have begun one turn, how many have begun two, and so on. Groups publish this every second."""
    (group,) = request(f"{system.url}/ray/stats")["groups"]
    return Counter({int(size): count for size, count in group["batches"].get("prefill", {}).items()})


def test_the_examples_of_sessions_run_from_their_settings_alone(systems: Callable[..., System]) -> None:
    """With six users, the example's strategy begins at most two turns in a batch. A built-in strategy begins more."""
    system = systems(
        "dev",
        PYTHONPATH=str(EXAMPLES),
        DAYBREAK_POOLS__LOUDNESS__WORKLOAD="loudness:SPEC",
        DAYBREAK_POOLS__LOUDNESS__OPTIONS='{"step_ms": 10}',
        DAYBREAK_POOLS__LOUDNESS__SESSIONS__STRATEGY="alternate:Alternate",
        DAYBREAK_POOLS__LOUDNESS__SESSIONS__MAX_LATENCY_MULTIPLIER="1",
    )
    system.ready(60)
    configured = request(f"{system.url}/ray/configure", {"max_batch_size": 16})["configuration"]
    assert configured["strategy"] == "alternate:Alternate"
    with Client(system.url) as client, ThreadPoolExecutor(USERS) as users:
        with pytest.raises(InvalidInputError, match="English -> English"):
            client.sessions.open("German", pool="loudness")
        with pytest.raises(urllib.error.HTTPError, match="422"):
            request(f"{system.url}/ray/configure", {"strategy": "alternate:TURNS"})
        speak = partial(written, client)

        def counted(turns: int) -> bool:
            return sum(size * count for size, count in begun(system).items()) >= turns

        def larger() -> bool:
            """Let the users speak once more. It can take about two seconds until a new strategy applies."""
            assert set(users.map(speak, [2] * USERS)) == {"loud silence " * 2}
            return max(begun(system)) > 2

        assert set(users.map(speak, [2] * USERS)) == {"loud silence " * 2}
        wait_until(lambda: counted(USERS * 4), 30, "the group's counts")
        assert max(begun(system)) == 2
        request(f"{system.url}/ray/configure", {"strategy": "iteration"})
        wait_until(larger, 60, "batches that begin more than two turns")
