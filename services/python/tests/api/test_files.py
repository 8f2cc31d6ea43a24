"""Files of tasks: bytes and parts of them, redirects, previews, and that they go with their tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from api_support import Api, Worker

from daybreak_server.api.native.routes.files import byte_range
from daybreak_server.api.problems import ApiError
from daybreak_server.domain.tasks import CheckpointRef
from testkit.waiting import wait_until

CONTENT = bytes(range(256)) * 4096
"""1 MiB: several chunks."""


@pytest.fixture
def done(api: Api, worker: Worker) -> dict[str, Any]:
    """A task that has left two files."""
    task = api.submit()
    claim = worker.claim()
    files = [
        worker.upload(claim, "video.mp4", CONTENT, "video/mp4"),
        worker.upload(claim, "empty.txt", b""),
    ]
    worker.finish(claim, *files)
    return api.get(task["id"])


def test_a_file_comes_whole_and_named(api: Api, done: dict[str, Any]) -> None:
    """The bytes have the record's length, type, checksum and name; HEAD says the same without them."""
    artifact = done["artifacts"][0]
    answer = api.client.get(artifact["url"])
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
    assert int(answer.headers["content-length"]) == artifact["size_bytes"] == len(CONTENT)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["etag"] == f'"{artifact["sha256"]}"'
    assert 'filename="video.mp4"' in answer.headers["content-disposition"]
    head = api.client.head(artifact["url"])
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "content-disposition"):
        assert head.headers[name] == answer.headers[name]
    assert api.client.get(done["artifacts"][1]["url"]).content == b""
    assert api.client.head(f"/v1/tasks/{done['id']}/artifacts/none").status_code == 404


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=300000-", 300_000, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=10-99999999", 10, len(CONTENT)),
        (f"bytes=-{2 * len(CONTENT)}", 0, len(CONTENT)),
    ],
)
def test_parts_of_a_file(api: Api, done: dict[str, Any], wanted: str, start: int, end: int) -> None:
    """206 with exactly the bytes asked for, so that a download can be continued."""
    answer = api.client.get(done["artifacts"][0]["url"], headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


def test_conditions_on_a_file(api: Api, done: dict[str, Any]) -> None:
    """A range beyond the end is 416; odd and several ranges give the whole; conditions are kept."""
    url, etag = done["artifacts"][0]["url"], f'"{done["artifacts"][0]["sha256"]}"'
    beyond = api.client.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "bad_range")
    assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"
    empty = api.client.get(done["artifacts"][1]["url"], headers={"Range": "bytes=0-"})
    assert empty.status_code == 416
    for whole in ("bytes=0-1,5-6", "lines=1-2", "bytes=5-1", "bytes=-", "nonsense"):
        assert api.client.get(url, headers={"Range": whole}).status_code == 200
    assert api.client.get(url, headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    assert api.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    part = {"Range": "bytes=0-9"}
    assert api.client.get(url, headers={**part, "If-Range": etag}).status_code == 206
    assert api.client.get(url, headers={**part, "If-Range": '"older"'}).status_code == 200


def test_small_ranges() -> None:
    """All of one byte is a part; the last no bytes are none that could be sent."""
    assert byte_range("bytes=0-", 1) == (0, 1)
    with pytest.raises(ApiError):
        byte_range("bytes=-0", 5)


def test_a_store_with_urls_is_redirected_to(
    api: Api, done: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store presigns, the answer is 307 to it, not to be kept; HEAD still answers itself."""
    asked: dict[str, Any] = {}

    def url(key: str, **options: Any) -> str:
        asked.update(options, key=key)
        return "https://s3.example/signed?x=1"

    monkeypatch.setattr(api.blobs, "url", url)
    answer = api.client.get(done["artifacts"][0]["url"], follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://s3.example/signed?x=1")
    assert answer.headers["cache-control"] == "no-store"
    assert (asked["filename"], asked["expires_s"]) == ("video.mp4", 900)
    assert asked["key"].startswith(done["id"])
    assert api.client.head(done["artifacts"][0]["url"]).status_code == 200


def test_a_file_that_is_gone_is_not_a_bug(api: Api, done: dict[str, Any]) -> None:
    """When the store has lost the file, the answer says so before any byte is sent."""
    api.blobs.delete(done["id"])
    answer = api.client.get(done["artifacts"][0]["url"])
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_artifact")


def test_files_are_published_by_success_only(api: Api, worker: Worker) -> None:
    """While the task runs its uploads are not to be had."""
    task = api.submit()
    claim = worker.claim()
    worker.upload(claim, "video.mp4", b"early")
    answer = api.client.get(f"/v1/tasks/{task['id']}/artifacts/video.mp4")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_artifact")


def test_a_preview_is_the_latest_picture(api: Api, worker: Worker) -> None:
    """None yet is 404; then the picture with its type, never cached."""
    task = api.submit()
    path = f"/v1/tasks/{task['id']}/preview"
    assert api.client.get(path).json()["code"] == "no_such_artifact"
    claim = worker.claim()
    for picture in (b"first", b"\x00second"):
        worker.queue.preview(claim.lease, picture, content_type="image/webp", ttl_s=60)
        answer = api.client.get(path)
        assert (answer.status_code, answer.content) == (200, picture)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "no-store"


def test_delete_removes_task_events_and_files(api: Api, done: dict[str, Any]) -> None:
    """204, and then there is nothing: no record, events or files, not in the list; a second one is 404."""
    assert list(api.blobs.list(done["id"]))
    assert api.client.delete(f"/v1/tasks/{done['id']}").status_code == 204
    assert not list(api.blobs.list(done["id"]))
    for path in ("", "/events", "/artifacts/video.mp4"):
        assert api.client.get(f"/v1/tasks/{done['id']}{path}").status_code == 404
    assert api.client.get("/v1/tasks").json()["data"] == []
    assert api.client.delete(f"/v1/tasks/{done['id']}").status_code == 404


def test_delete_waits_for_the_end(api: Api, worker: Worker) -> None:
    """What waits or runs is 409 and stays."""
    task = api.submit()
    for _ in range(2):
        answer = api.client.delete(f"/v1/tasks/{task['id']}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        if api.get(task["id"])["state"] == "queued":
            worker.claim()
    assert api.get(task["id"])["state"] == "running"


def test_retention_removes_all_together(
    start_api: Callable[..., Api], start_worker: Callable[..., Worker]
) -> None:
    """After retention_s the ticker deletes files, then record and events, with nobody asking."""
    api = start_api(pools={"echo": {"workload": "echo", "retention_s": 0.5}})
    worker = start_worker()
    task = api.submit()
    claim = worker.claim()
    worker.finish(claim, worker.upload(claim, "echo.txt", b"x"))

    def gone() -> bool:
        return api.client.get(f"/v1/tasks/{task['id']}").status_code == 404

    wait_until(gone, 60, "the task to be swept")
    assert not list(api.blobs.list(task["id"]))


def test_losers_and_checkpoints_are_swept(api: Api, worker: Worker) -> None:
    """Files of a failed attempt and the checkpoints of an ended task go; the winner's stay."""
    task = api.submit()
    first = worker.claim()
    worker.upload(first, "echo.txt", b"loser")
    worker.fail(first)
    second = worker.claim(wait_s=60)
    source = worker.folder / "checkpoint"
    source.write_bytes(b"state")
    key = f"{task['id']}/checkpoints/one.bin"
    list(worker.blobs.upload(key, source, content_type="application/octet-stream"))
    worker.queue.report(second.lease, [], checkpoint=CheckpointRef(key=key, step=1))
    winner = worker.upload(second, "echo.txt", b"winner")
    worker.finish(second, winner)

    def swept() -> bool:
        return [stat.key for stat in api.blobs.list(task["id"])] == [winner.key]

    wait_until(swept, 60, "only the winner's file to be left")
