"""Python 3.11 and redis-py swallow a cancellation that arrives together with a response."""

from __future__ import annotations

import asyncio

import pytest

from daybreak.event_relay import Relay


async def test_a_swallowed_cancellation_still_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the relay continued to wait, `asyncio.wait_for` around the iteration would end only at the next event."""
    relay = Relay("redis://127.0.0.1:1", pool="p", group="g", consumer="a")
    refills = 0

    async def swallow() -> None:
        nonlocal refills
        refills += 1
        assert refills == 1, "the relay waits again"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    monkeypatch.setattr(relay, "_refill", swallow)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(relay), 0.05)
