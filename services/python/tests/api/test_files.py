"""Files of tasks: whole files and ranges, redirects, previews, and their deletion with the task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from api_support import Api, FakeLeader

from daybreak_server.api.errors import ApiError
from daybreak_server.api.task_api.routes.files import byte_range
from daybreak_server.domain.tasks import CheckpointRef
from testkit.waiting import wait_until

CONTENT = bytes(range(256)) * 4096
"""1 MiB: several chunks."""


@pytest.fixture
def ended(api: Api, leader: FakeLeader) -> dict[str, Any]:
    """A task that has produced two files."""
    task = api.submit()
    claim = leader.claim()
    files = [
        leader.upload(claim, "video.mp4", CONTENT, "video/mp4"),
        leader.upload(claim, "empty.txt", b""),
    ]
    leader.finish(claim, *files)
    return api.get(task["id"])


def test_a_file_is_served_whole_with_its_name(api: Api, ended: dict[str, Any]) -> None:
    """Length, type, checksum and name are those of the task's artifact, and HEAD has the same headers."""
    artifact = ended["artifacts"][0]
    response = api.client.get(artifact["url"])
    assert response.status_code == 200
    assert hashlib.sha256(response.content).hexdigest() == artifact["sha256"]
    assert int(response.headers["content-length"]) == artifact["size_bytes"] == len(CONTENT)
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["etag"] == f'"{artifact["sha256"]}"'
    assert 'filename="video.mp4"' in response.headers["content-disposition"]
    head = api.client.head(artifact["url"])
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "content-disposition"):
        assert head.headers[name] == response.headers[name]
    assert api.client.get(ended["artifacts"][1]["url"]).content == b""
    assert api.client.head(f"/v1/tasks/{ended['id']}/artifacts/none").status_code == 404


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=300000-", 300_000, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=10-99999999", 10, len(CONTENT)),
        (f"bytes=-{2 * len(CONTENT)}", 0, len(CONTENT)),
    ],
)
def test_a_range_of_a_file_is_served(
    api: Api, ended: dict[str, Any], header: str, start: int, end: int
) -> None:
    """A 206 has exactly the requested bytes, so that a download can be resumed."""
    response = api.client.get(ended["artifacts"][0]["url"], headers={"Range": header})
    assert response.status_code == 206
    assert response.content == CONTENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


def test_range_requests_may_be_invalid_or_conditional(api: Api, ended: dict[str, Any]) -> None:
    """A range beyond the end gives 416. An invalid range or several ranges give the whole file.

    The headers ``If-None-Match`` and ``If-Range`` have their usual effect.
    """
    url, etag = ended["artifacts"][0]["url"], f'"{ended["artifacts"][0]["sha256"]}"'
    beyond = api.client.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "bad_range")
    assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"
    empty = api.client.get(ended["artifacts"][1]["url"], headers={"Range": "bytes=0-"})
    assert empty.status_code == 416
    for whole in ("bytes=0-1,5-6", "lines=1-2", "bytes=5-1", "bytes=-", "nonsense"):
        assert api.client.get(url, headers={"Range": whole}).status_code == 200
    assert api.client.get(url, headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    assert api.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    part = {"Range": "bytes=0-9"}
    assert api.client.get(url, headers={**part, "If-Range": etag}).status_code == 206
    assert api.client.get(url, headers={**part, "If-Range": '"older"'}).status_code == 200


def test_a_range_may_cover_a_files_only_byte() -> None:
    """A range of a file that has only one byte is served. A range without any byte (``bytes=-0``) is refused."""
    assert byte_range("bytes=0-", 1) == (0, 1)
    with pytest.raises(ApiError):
        byte_range("bytes=-0", 5)


def test_a_file_with_a_presigned_url_is_a_redirect(
    api: Api, ended: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GET redirects with 307, which must not be cached. HEAD does not redirect."""
    call: dict[str, Any] = {}

    def url(key: str, **options: Any) -> str:
        call.update(options, key=key)
        return "https://s3.example/signed?x=1"

    monkeypatch.setattr(api.blobs, "url", url)
    response = api.client.get(ended["artifacts"][0]["url"], follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "https://s3.example/signed?x=1")
    assert response.headers["cache-control"] == "no-store"
    assert (call["filename"], call["expires_s"]) == ("video.mp4", 900)
    assert call["key"].startswith(ended["id"])
    assert api.client.head(ended["artifacts"][0]["url"]).status_code == 200


def test_a_file_that_the_store_has_lost_is_404(api: Api, ended: dict[str, Any]) -> None:
    """The whole response is an error. No byte of a file comes before the error."""
    api.blobs.delete(ended["id"])
    response = api.client.get(ended["artifacts"][0]["url"])
    assert (response.status_code, response.json()["code"]) == (404, "no_such_artifact")


def test_files_are_served_only_after_success(api: Api, leader: FakeLeader) -> None:
    """While the task runs, its uploads cannot be downloaded."""
    task = api.submit()
    claim = leader.claim()
    leader.upload(claim, "video.mp4", b"early")
    response = api.client.get(f"/v1/tasks/{task['id']}/artifacts/video.mp4")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_artifact")


def test_the_preview_is_the_latest_image(api: Api, leader: FakeLeader) -> None:
    """Before the first preview, the path gives 404. A preview is never cached."""
    task = api.submit()
    path = f"/v1/tasks/{task['id']}/preview"
    assert api.client.get(path).json()["code"] == "no_such_artifact"
    claim = leader.claim()
    for image in (b"first", b"\x00second"):
        leader.queue.preview(claim.lease, image, content_type="image/webp", ttl_s=60)
        response = api.client.get(path)
        assert (response.status_code, response.content) == (200, image)
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "no-store"


def test_delete_removes_the_task_its_events_and_files(api: Api, ended: dict[str, Any]) -> None:
    """Afterwards, every path of the task gives 404, and so does a second delete."""
    assert list(api.blobs.list(ended["id"]))
    assert api.client.delete(f"/v1/tasks/{ended['id']}").status_code == 204
    assert not list(api.blobs.list(ended["id"]))
    for path in ("", "/events", "/artifacts/video.mp4"):
        assert api.client.get(f"/v1/tasks/{ended['id']}{path}").status_code == 404
    assert api.client.get("/v1/tasks").json()["data"] == []
    assert api.client.delete(f"/v1/tasks/{ended['id']}").status_code == 404


def test_a_task_that_has_not_ended_is_not_deleted(api: Api, leader: FakeLeader) -> None:
    """The delete gives 409, and the task stays."""
    task = api.submit()
    for _ in range(2):
        response = api.client.delete(f"/v1/tasks/{task['id']}")
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
        if api.get(task["id"])["state"] == "queued":
            leader.claim()
    assert api.get(task["id"])["state"] == "running"


def test_the_end_of_retention_removes_files_record_and_events(
    start_api: Callable[..., Api], start_leader: Callable[..., FakeLeader]
) -> None:
    """Without any request, the ticker deletes the files of the task, and then the task."""
    api = start_api(pools={"echo": {"workload": "echo", "retention_s": 0.5}})
    leader = start_leader()
    task = api.submit()
    claim = leader.claim()
    leader.finish(claim, leader.upload(claim, "echo.txt", b"x"))

    def gone() -> bool:
        return api.client.get(f"/v1/tasks/{task['id']}").status_code == 404

    wait_until(gone, 60, "the task to be deleted")
    assert not list(api.blobs.list(task["id"]))


def test_files_of_lost_attempts_and_checkpoints_are_deleted(api: Api, leader: FakeLeader) -> None:
    """The files of the successful attempt stay."""
    task = api.submit()
    first = leader.claim()
    leader.upload(first, "echo.txt", b"lost")
    leader.fail(first)
    second = leader.claim(wait_s=60)
    source = leader.folder / "checkpoint"
    source.write_bytes(b"state")
    key = f"{task['id']}/checkpoints/one.bin"
    list(leader.blobs.upload(key, source, content_type="application/octet-stream"))
    leader.queue.report(second.lease, [], checkpoint=CheckpointRef(key=key, step=1))
    published = leader.upload(second, "echo.txt", b"published")
    leader.finish(second, published)

    def only_published_left() -> bool:
        return [stat.key for stat in api.blobs.list(task["id"])] == [published.key]

    wait_until(only_published_left, 60, "only the published file to remain")
