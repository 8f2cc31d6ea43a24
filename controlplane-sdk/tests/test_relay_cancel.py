"""A cancel that is lost on its way: Python 3.11 and the client swallow one that comes just as an answer does."""

from __future__ import annotations

import asyncio

import pytest

from daybreak.relay import Relay


async def test_a_cancel_that_the_client_swallows_still_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise `asyncio.wait_for` around the iteration would wait until the next event."""
    relay = Relay("redis://127.0.0.1:1", pool="p", group="g", consumer="a")
    fetches = 0

    async def swallow() -> None:
        nonlocal fetches
        fetches += 1
        assert fetches == 1, "it went on waiting"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    monkeypatch.setattr(relay, "_fetch", swallow)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(relay), 0.05)
