"""How an event stream ends: the server says that no event follows, or the caller leaves the loop early."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daybreak import AsyncClient, Client, Retry

FAST = Retry(attempts=4, first_s=0.01, max_s=0.05)


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_a_204_ends_the_event_stream(
    scripted: Any, make: Any, no_environment: None, content_type: str
) -> None:
    """After a 204 both clients stop at once, send no other request, and raise no error."""
    scripted.answers = [make.answer(status=204, headers={"Content-Type": content_type})]
    with Client(scripted.url) as client:
        assert list(client.events("video_01", after="9-0")) == []
    async with AsyncClient(scripted.url) as client:
        assert [event async for event in client.events("video_01", after="9-0")] == []
    assert [seen.headers["last-event-id"] for seen in scripted.seen] == ["9-0", "9-0"]


def test_leaving_a_stream_early_closes_its_connection(scripted: Any, make: Any, no_environment: None) -> None:
    """A loop that ends early leaves no connection open. An open one would cause a warning, which fails the test."""
    scripted.answers = [make.stream(make.event("queued", "1-0"), make.event("started", "2-0"))]
    with Client(scripted.url, retry=FAST) as client:
        for _ in client.events("video_01"):
            break

    async def leave() -> None:
        async with AsyncClient(scripted.url, retry=FAST) as client:
            async for _ in client.events("video_01"):
                break

    asyncio.run(leave())
