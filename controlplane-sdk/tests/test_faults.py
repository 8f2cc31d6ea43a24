"""``Client`` and ``AsyncClient`` return correct results although the server fails in many ways."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daybreak import (
    ArtifactNotFoundError,
    AsyncClient,
    Client,
    ConfigError,
    DownloadError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    QuotaError,
    Retry,
    ServerError,
    TaskCancelledError,
    TaskFailedError,
    TransportError,
    UnavailableError,
    UnreachableError,
    WaitTimeoutError,
)
from daybreak.wire import EventType

FAST = Retry(attempts=4, first_s=0.01, max_s=0.05)


class Face:
    """One interface for ``Client`` and ``AsyncClient``, so that each test is written once and runs with both."""

    def __init__(self, kind: str, url: str, retry: Retry) -> None:
        self.kind, self.url, self.retry = kind, url, retry

    def call(self, name: str, *args: Any, **kw: Any) -> Any:
        """Call the client's method. If the method returns an iterator, return its items as a list."""
        if self.kind == "sync":
            with Client(self.url, retry=self.retry) as client:
                found = getattr(client, name)(*args, **kw)
                return list(found) if name in ("events", "list") else found
        return asyncio.run(self._acall(name, *args, **kw))

    async def _acall(self, name: str, *args: Any, **kw: Any) -> Any:
        async with AsyncClient(self.url, retry=self.retry) as client:
            found = getattr(client, name)(*args, **kw)
            return [each async for each in found] if name in ("events", "list") else await found


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, scripted: Any, no_environment: None) -> Callable[..., Face]:
    def make_face(retry: Retry = FAST) -> Face:
        return Face(request.param, scripted.url, retry)

    return make_face


def test_a_submit_is_retried_with_the_same_key(scripted: Any, make: Any, face: Any) -> None:
    """After a dropped connection, a 503 and a broken response there is one task, because the key never changed."""
    broken = make.answer(make.task(), 202, length=10_000)
    scripted.answers = [
        make.drop,
        make.problem(503, "store_unavailable"),
        broken,
        make.answer(make.task(), 202),
    ]
    task = face().call("submit", "video", {"prompt": "x"}, priority="low", metadata={"order": "1"})
    assert task.id == "video_01"
    assert len(scripted.seen) == 4
    assert len({seen.headers["idempotency-key"] for seen in scripted.seen}) == 1
    assert scripted.seen[0].json == {
        "pool": "video",
        "input": {"prompt": "x"},
        "priority": "low",
        "metadata": {"order": "1"},
    }


def test_retries_end_after_the_last_attempt(scripted: Any, make: Any, face: Any) -> None:
    """After the last attempt the error is raised, with the server's Retry-After."""
    scripted.answers = [make.problem(503, "queue_full", headers={"Retry-After": "0"})]
    with pytest.raises(UnavailableError) as caught:
        face().call("get", "video_01")
    assert (len(scripted.seen), caught.value.retry_after_s, caught.value.request_id) == (4, 0, "r-1")


def test_a_long_retry_after_is_raised_at_once(scripted: Any, make: Any, face: Any) -> None:
    """The client does not wait an hour for a quota."""
    scripted.answers = [make.problem(429, "quota_exceeded", headers={"Retry-After": "3600"}, limit="queued")]
    with pytest.raises(QuotaError) as caught:
        face().call("get", "video_01")
    assert (len(scripted.seen), caught.value.retry_after_s, caught.value.limit) == (1, 3600, "queued")


def test_permanent_errors_are_not_retried(scripted: Any, make: Any, face: Any) -> None:
    """The error of invalid input is raised at once, and names the field."""
    fields = [{"field": "input.frames", "message": "frames must be 4n+1"}]
    scripted.answers = [make.problem(422, "invalid_input", errors=fields)]
    with pytest.raises(InvalidInputError) as caught:
        face().call("submit", "video", {})
    assert [f.field for f in caught.value.fields] == ["input.frames"]
    assert len(scripted.seen) == 1


def test_an_unreachable_server_and_an_invalid_url_have_their_errors(no_environment: None) -> None:
    """A port without a listener raises `UnreachableError`. An invalid URL or API key raises `ConfigError`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Client(url, retry=FAST) as client, pytest.raises(UnreachableError, match="cannot reach"):
            client.pools()
    for bad in ("localhost:8000", "ftp://x", "http://", "http://[::"):
        with pytest.raises(ConfigError):
            Client(bad)
    with pytest.raises(ConfigError, match="key"):
        Client(api_key="kéy")


def test_a_delete_whose_response_was_lost_succeeds_on_404(scripted: Any, make: Any, face: Any) -> None:
    """404 means success on the second attempt, but not on the first."""
    scripted.answers = [make.drop, make.problem(404, "not_found")]
    assert face().call("delete", "video_01") is None
    scripted.answers = [make.problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        face().call("delete", "video_01")


def test_the_environment_provides_url_and_key(
    scripted: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DAYBREAK_URL` and `DAYBREAK_API_KEY` are used if no argument is given."""
    scripted.answers = [make.answer({"data": []})]
    monkeypatch.setenv("DAYBREAK_URL", scripted.url + "/")
    monkeypatch.setenv("DAYBREAK_API_KEY", "from-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client() as client:
        assert client.pools() == ()
    with Client(api_key="given") as client:
        client.pools()
    assert [s.headers["authorization"] for s in scripted.seen] == ["Bearer from-environment", "Bearer given"]
    assert scripted.seen[0].path == "/v1/pools"
    assert scripted.seen[0].headers["user-agent"].startswith("daybreak-sdk/")


def test_lists_request_pages_as_needed(scripted: Any, make: Any, face: Any) -> None:
    """The client requests each page with the cursor of the page before, up to the limit."""
    first = {"data": [make.task("video_01"), make.task("video_02")], "has_more": True, "next": "c1"}
    scripted.answers = [make.answer(first), make.answer({"data": [make.task("video_03")]})]
    found = face().call("list", state="queued", pool="video", limit=5)
    assert [task.id for task in found] == ["video_01", "video_02", "video_03"]
    assert [(s.query.get("after"), s.query["limit"], s.query["state"]) for s in scripted.seen] == [
        (None, "5", "queued"),
        ("c1", "3", "queued"),
    ]


def test_events_exactly_once_over_broken_connections(scripted: Any, make: Any, face: Any) -> None:
    """Each event arrives once and in order, although connections break, are refused, close early and repeat events."""
    scripted.answers = [
        make.stream(make.event("queued", "1-0", position=1), make.event("wake", phase="pods"), broken=True),
        make.problem(503, "store_unavailable", headers={"Retry-After": "0"}),
        make.stream(make.event("queued", "1-0"), make.event("started", "2-0"), b"id: 2-1\nevent: progr"),
        make.drop,
        make.stream(
            b": heartbeat\n\n", make.event("confetti", "2-5"), make.event("progress", "10-0", fraction=0.5)
        ),
        make.stream(
            make.event("started", "2-0"), make.event("progress", "10-0"), make.event("succeeded", "11-0")
        ),
    ]
    events = face().call("events", "video_01")
    assert [(e.type, e.id) for e in events] == [
        ("queued", "1-0"),
        ("wake", None),
        ("started", "2-0"),
        ("progress", "10-0"),
        ("succeeded", "11-0"),
    ]
    sent_ids = [s.headers.get("last-event-id") for s in scripted.seen]
    assert sent_ids == [None, "1-0", "1-0", "2-0", "2-0", "10-0"]


def test_events_continue_after_an_id(scripted: Any, make: Any, face: Any) -> None:
    """`after` is sent as Last-Event-ID, and earlier events are not returned again."""
    scripted.answers = [make.stream(make.event("started", "5-0"), make.event("failed", "6-0"))]
    events = face().call("events", "video_01", after="5-0")
    assert [e.id for e in events] == ["6-0"]
    assert scripted.seen[0].headers["last-event-id"] == "5-0"


def test_permanent_stream_errors_are_raised(scripted: Any, make: Any, face: Any) -> None:
    """An unknown task, a response that is not a stream, and an invalid event are not retried."""
    scripted.answers = [make.problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        face().call("events", "video_01")
    scripted.answers = [make.answer({})]
    with pytest.raises(ProtocolError, match="instead of an event stream"):
        face().call("events", "video_01")
    scripted.answers = [make.stream(b"event: queued\ndata: {}\n\n")]
    with pytest.raises(ProtocolError, match="cannot be decoded"):
        face().call("events", "video_01")
    assert len(scripted.seen) == 3


def test_events_end_when_nothing_can_follow(scripted: Any, make: Any, face: Any) -> None:
    """The iteration ends if `after` is the terminal event. It also ends if all events were trimmed."""
    nothing, ended = make.stream(), make.answer(make.task(state="succeeded"))
    scripted.answers = [nothing, ended, nothing]
    assert face().call("events", "video_01", after="9-0") == []
    assert len(scripted.seen) == 3
    trimmed = make.stream(make.event("reset", task=make.task(state="succeeded")))
    scripted.answers = [trimmed, ended, trimmed]
    events = face().call("events", "video_01")
    assert {e.type for e in events} == {EventType.RESET}


def test_a_task_that_ends_between_two_connections_delivers_its_last_event(
    scripted: Any, make: Any, face: Any
) -> None:
    """If the client finds that the task has ended, it reads the stream once more, and gets the last event."""
    ended = make.answer(make.task(state="succeeded"))
    scripted.answers = [make.stream(), ended, make.stream(make.event("succeeded", "2-0"))]
    assert [e.type for e in face().call("events", "video_01", after="1-0")] == ["succeeded"]
    assert len(scripted.seen) == 3


def test_a_lost_stream_is_given_up_after_its_time_limit(scripted: Any, make: Any, face: Any) -> None:
    """The error is raised after `stream_s` seconds without a byte."""
    retry = Retry(attempts=2, first_s=0.01, max_s=0.02, stream_s=0.2)
    scripted.answers = [make.stream(make.event("queued", "1-0")), make.drop]
    with pytest.raises(TransportError):
        face(retry).call("events", "video_01")
    assert len(scripted.seen) > 3


def test_wait_ends_with_the_task_its_error_or_a_timeout(scripted: Any, make: Any, face: Any) -> None:
    """`wait` returns the task, raises its error, or raises `WaitTimeoutError`."""
    ended = make.stream(make.event("cancelled", "1-0"))
    scripted.answers = [ended, make.answer(make.task(state="cancelled"))]
    with pytest.raises(TaskCancelledError) as caught:
        face().call("wait", "video_01")
    assert caught.value.task.id == "video_01"
    error = {"code": "model_failed", "message": "no memory"}
    scripted.answers = [ended, make.answer(make.task(state="failed", error=error))]
    with pytest.raises(TaskFailedError, match="no memory"):
        face().call("wait", "video_01")
    scripted.answers = [ended, make.answer(make.task(state="failed", error=error))]
    assert face().call("wait", "video_01", check=False).state == "failed"
    scripted.answers = [make.answer(make.task(state="running"))]
    with pytest.raises(WaitTimeoutError, match="still running"):
        face().call("wait", "video_01", timeout_s=0.2)


FILE = bytes(range(256)) * 40_000
DIGEST = hashlib.sha256(FILE).hexdigest()


def artifact(content: bytes = FILE, **fields: Any) -> dict[str, Any]:
    base = {"name": "video.mp4", "content_type": "video/mp4", "size_bytes": len(content)}
    return base | {"sha256": hashlib.sha256(content).hexdigest(), "url": "/x"} | fields


def ranged(make: Any, cut: int | None = None) -> Callable[[Any], Any]:
    """An answer with the file from the requested offset. With ``cut``, the connection breaks after ``cut`` bytes."""

    def answer(seen: Any) -> Any:
        start = int(seen.headers.get("range", "bytes=0-")[6:-1])
        rest = FILE[start:]
        return make.answer(rest if cut is None else rest[:cut], 206 if start else 200, length=len(rest))

    return answer


def test_a_broken_download_resumes(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """A download that breaks several times is complete in the end. A second download of the file requests no bytes."""
    shown = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    cut = ranged(make, 3_000_000)
    scripted.answers = [shown, cut, make.drop, cut, make.problem(503, "store_unavailable"), ranged(make)]
    path = face().call("download", "video_01", "video.mp4", tmp_path / "new" / "out.mp4")
    assert path.read_bytes() == FILE
    assert [p.name for p in path.parent.iterdir()] == ["out.mp4"]
    starts = [int(s.headers.get("range", "bytes=0-")[6:-1]) for s in scripted.seen[1:]]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > 5_000_000
    assert all(s.headers["accept-encoding"] == "identity" for s in scripted.seen[1:])
    before = len(scripted.seen)
    scripted.answers = [shown]
    face().call("download", "video_01", "video.mp4", path)
    assert len(scripted.seen) == before + 1


def test_a_download_resumes_in_another_process(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """The next call continues the part file, and downloads everything again if the bytes in it were wrong."""
    shown = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    scripted.answers = [shown, ranged(make, 2_000_000), make.drop]
    with pytest.raises(TransportError):
        face().call("download", "video_01", "video.mp4", tmp_path)
    (part,) = tmp_path.iterdir()
    assert (part.stat().st_size, part.name[0]) == (2_000_000, ".")
    part.write_bytes(b"\0" * 1_000_000)
    scripted.answers = [shown, ranged(make)]
    path = face().call("download", "video_01", "video.mp4", tmp_path)
    assert path == tmp_path / "video.mp4"
    assert path.read_bytes() == FILE


@pytest.mark.parametrize("size", [0, 10])
def test_a_download_works_without_ranges(
    scripted: Any, make: Any, face: Any, tmp_path: Path, size: int
) -> None:
    """A server may ignore the range, and a file may be empty."""
    content = FILE[:size]
    task_response = make.task(state="succeeded", artifacts=[artifact(content)])
    scripted.answers = [
        make.answer(task_response),
        make.answer(content[:5], length=size or 1),
        make.answer(content),
    ]
    assert face().call("download", "video_01", "video.mp4", tmp_path).read_bytes() == content


def test_a_download_follows_redirects_without_the_api_key(
    scripted: Any, make: Any, tmp_path: Path, no_environment: None
) -> None:
    """The host of a presigned URL receives the range but never the API key."""
    task_response = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    elsewhere = scripted.url.replace("127.0.0.1", "localhost") + "/bucket/file?signature=1"
    moved = make.answer(b"", 307, headers={"Location": elsewhere})
    scripted.answers = [task_response, moved, ranged(make, 1_500_000), moved, ranged(make)]
    with Client(scripted.url, api_key="secret", retry=FAST) as client:
        path = client.download("video_01", "video.mp4", tmp_path)
    assert path.read_bytes() == FILE
    assert [s.headers.get("authorization") for s in scripted.seen] == ["Bearer secret"] * 2 + [
        None,
        "Bearer secret",
        None,
    ]
    assert scripted.seen[-1].headers["range"].startswith("bytes=1")


def test_a_download_retries_a_500_of_s3_but_not_of_daybreak(
    scripted: Any, make: Any, face: Any, tmp_path: Path
) -> None:
    """S3's InternalError is temporary. A 500 of Daybreak is a bug, so its error is raised at once."""
    task_response = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    errs = make.answer(b"<Error><Code>InternalError</Code></Error>", 500)
    scripted.answers = [task_response, errs, ranged(make, 1_500_000), errs, ranged(make)]
    assert face().call("download", "video_01", "video.mp4", tmp_path).read_bytes() == FILE
    scripted.answers = [task_response, make.problem(500, "internal")]
    before = len(scripted.seen)
    with pytest.raises(ServerError):
        face().call("download", "video_01", "video.mp4", tmp_path / "again.mp4")
    assert len(scripted.seen) == before + 2


def test_a_download_of_the_wrong_bytes_fails(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """Bytes with a wrong SHA-256 or a wrong size never reach the target, and an unknown artifact is an error."""
    task_response = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    for wrong in (b"\1" * len(FILE), b"\1" * (len(FILE) + 5)):
        scripted.answers = [task_response, make.answer(wrong)]
        with pytest.raises(DownloadError):
            face().call("download", "video_01", "video.mp4", tmp_path)
        assert not (tmp_path / "video.mp4").exists()
    scripted.answers = [task_response]
    with pytest.raises(ArtifactNotFoundError, match=r"no artifact 'nope.mp4'; its artifacts: video.mp4"):
        face().call("download", "video_01", "nope.mp4", tmp_path)


def test_the_other_methods_parse_their_responses(scripted: Any, make: Any, face: Any) -> None:
    """Cancel, replay, estimate, batch, pool and preview parse their responses."""
    scripted.answers = [make.answer(make.task(cancel_requested=True), 202)]
    assert face().call("cancel", "video_01").cancel_requested
    scripted.answers = [make.drop, make.answer(make.task("video_02", replay_of="video_01"), 202)]
    assert face().call("replay", "video_01").replay_of == "video_01"
    assert scripted.seen[-1].headers["idempotency-key"] == scripted.seen[-2].headers["idempotency-key"]
    scripted.answers = [make.answer({"feasible": True, "run_s": 3.0})]
    assert face().call("estimate", "video", {"prompt": "x"}).run_s == 3.0
    refused = {"type": "t", "title": "t", "status": 422, "code": "invalid_input", "detail": "d"}
    results = [{"status": 202, "task": make.task()}, {"status": 422, "error": refused}]
    scripted.answers = [make.answer({"results": results}, 207)]
    batch = face().call("submit_batch", [{"pool": "video", "input": {}}, {"pool": "video", "input": {}}])
    assert [item.status for item in batch.results] == [202, 422]
    pool = {"name": "video", "workload": "video", "wake": {"phase": "ready"}}
    scripted.answers = [make.answer(pool)]
    assert face().call("pool", "video").wake.phase == "ready"
    scripted.answers = [make.answer(b"RIFF", headers={"Content-Type": "image/webp"})]
    assert face().call("preview", "video_01").content == b"RIFF"
