"""Guarantees of routes and streams. Without these tests, a small mistake could break them unnoticed."""

from __future__ import annotations

from api_support import Api, FakeLeader

from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.topic import Subscriber


def test_a_refused_delete_deletes_no_file(api: Api, leader: FakeLeader) -> None:
    """The files that a running task has stored so far still exist after the refusal."""
    task = api.submit()["id"]
    claim = leader.claim()
    leader.upload(claim, "video.mp4", b"half of it", "video/mp4")
    before = [stat.key for stat in api.blobs.list(task)]
    assert api.client.delete(f"/v1/tasks/{task}").status_code == 409
    assert [stat.key for stat in api.blobs.list(task)] == before != []


def test_a_subscriber_that_does_not_read_lags_and_holds_no_frames() -> None:
    """After one frame too many, the subscriber lags: its queue is empty, and it accepts no frame until it resumes."""
    subscriber = Subscriber(limit=3)
    for number in range(5):
        subscriber.push(Frame("log", b"{}", key=(number, 0)))
        assert subscriber.lagging == (number >= 3)
    assert subscriber.pop() == []
    subscriber.resume()
    subscriber.push(Frame("log", b"{}", key=(9, 0)))
    assert [frame.key for frame in subscriber.pop()] == [(9, 0)]
