"""Following ends when the server says that no event follows."""

from __future__ import annotations

from typing import Any

import pytest

from daybreak import AsyncClient, Client


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
