"""Both clients against a real server that breaks in every way: the answers stay right."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daybreak import (
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
    """The two clients behind one face, so that each test is written once and run for both."""

    def __init__(self, kind: str, url: str, retry: Retry) -> None:
        self.kind, self.url, self.retry = kind, url, retry

    def call(self, name: str, *args: Any, **kw: Any) -> Any:
        """A method's value; a list of what it yields when it iterates."""
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


def test_submit_is_repeated_with_one_key(scripted: Any, make: Any, face: Any) -> None:
    """A dropped connection, a 503 and a broken answer later there is one task: the key never changed."""
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


def test_patience_ends(scripted: Any, make: Any, face: Any) -> None:
    """After the last attempt the error comes out, with what the server asked for."""
    scripted.answers = [make.problem(503, "queue_full", headers={"Retry-After": "0"})]
    with pytest.raises(UnavailableError) as caught:
        face().call("get", "video_01")
    assert (len(scripted.seen), caught.value.retry_after_s, caught.value.request_id) == (4, 0, "r-1")


def test_a_server_that_asks_for_too_long_is_not_waited_for(scripted: Any, make: Any, face: Any) -> None:
    """A quota that opens in an hour is an error now."""
    scripted.answers = [make.problem(429, "quota_exceeded", headers={"Retry-After": "3600"}, limit="queued")]
    with pytest.raises(QuotaError) as caught:
        face().call("get", "video_01")
    assert (len(scripted.seen), caught.value.retry_after_s, caught.value.limit) == (1, 3600, "queued")


def test_refusals_are_not_repeated(scripted: Any, make: Any, face: Any) -> None:
    """Invalid input says which field, at once."""
    fields = [{"field": "input.frames", "message": "frames must be 4n+1"}]
    scripted.answers = [make.problem(422, "invalid_input", errors=fields)]
    with pytest.raises(InvalidInputError) as caught:
        face().call("submit", "video", {})
    assert [f.field for f in caught.value.fields] == ["input.frames"]
    assert len(scripted.seen) == 1


def test_nobody_there(no_environment: None) -> None:
    """A port that nobody listens on is `UnreachableError`; a URL that is none is `ConfigError`."""
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


def test_delete_that_lost_its_answer(scripted: Any, make: Any, face: Any) -> None:
    """When the first try broke, 404 to the second means done; to the first it does not."""
    scripted.answers = [make.drop, make.problem(404, "not_found")]
    assert face().call("delete", "video_01") is None
    scripted.answers = [make.problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        face().call("delete", "video_01")


def test_key_and_environment(scripted: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DAYBREAK_URL` and `DAYBREAK_API_KEY` are used where nothing is given."""
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


def test_lists_page_by_page(scripted: Any, make: Any, face: Any) -> None:
    """Pages are asked for as they are needed, with the cursor, and no more than the limit."""
    first = {"data": [make.task("video_01"), make.task("video_02")], "has_more": True, "next": "c1"}
    scripted.answers = [make.answer(first), make.answer({"data": [make.task("video_03")]})]
    found = face().call("list", state="queued", pool="video", limit=5)
    assert [task.id for task in found] == ["video_01", "video_02", "video_03"]
    assert [(s.query.get("after"), s.query["limit"], s.query["state"]) for s in scripted.seen] == [
        (None, "5", "queued"),
        ("c1", "3", "queued"),
    ]


def test_events_exactly_once_over_broken_connections(scripted: Any, make: Any, face: Any) -> None:
    """Cut, refused, repeated and closed early: each event comes once, in order, up to the terminal one."""
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
    asked = [s.headers.get("last-event-id") for s in scripted.seen]
    assert asked == [None, "1-0", "1-0", "2-0", "2-0", "10-0"]


def test_events_go_on_after_an_id(scripted: Any, make: Any, face: Any) -> None:
    """`after` is sent as Last-Event-ID, and nothing up to it is given again."""
    scripted.answers = [make.stream(make.event("started", "5-0"), make.event("failed", "6-0"))]
    events = face().call("events", "video_01", after="5-0")
    assert [e.id for e in events] == ["6-0"]
    assert scripted.seen[0].headers["last-event-id"] == "5-0"


def test_events_of_nothing(scripted: Any, make: Any, face: Any) -> None:
    """An unknown task, a page that is no stream, and an unreadable event are errors, not endless tries."""
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


def test_events_after_the_last_one(scripted: Any, make: Any, face: Any) -> None:
    """Where nothing more can come, since the end is known or all history is trimmed, the iteration ends."""
    nothing, ended = make.stream(), make.answer(make.task(state="succeeded"))
    scripted.answers = [nothing, ended, nothing]
    assert face().call("events", "video_01", after="9-0") == []
    assert len(scripted.seen) == 3
    trimmed = make.stream(make.event("reset", task=make.task(state="succeeded")))
    scripted.answers = [trimmed, ended, trimmed]
    events = face().call("events", "video_01")
    assert {e.type for e in events} == {EventType.RESET}


def test_the_end_is_not_missed_between_two_connections(scripted: Any, make: Any, face: Any) -> None:
    """A task that ends while a connection is lost still brings its terminal event."""
    ended = make.answer(make.task(state="succeeded"))
    scripted.answers = [make.stream(), ended, make.stream(make.event("succeeded", "2-0"))]
    assert [e.type for e in face().call("events", "video_01", after="1-0")] == ["succeeded"]
    assert len(scripted.seen) == 3


def test_a_stream_that_never_comes_back_is_given_up(scripted: Any, make: Any, face: Any) -> None:
    """After the patience for a lost stream the error comes out."""
    patience = Retry(attempts=2, first_s=0.01, max_s=0.02, stream_s=0.2)
    scripted.answers = [make.stream(make.event("queued", "1-0")), make.drop]
    with pytest.raises(TransportError):
        face(patience).call("events", "video_01")
    assert len(scripted.seen) > 3


def test_wait(scripted: Any, make: Any, face: Any) -> None:
    """Waiting ends with the task, with its error, or with the time."""
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
    """The file from where the request asks; ``cut``: breaks after so many bytes."""

    def answer(seen: Any) -> Any:
        start = int(seen.headers.get("range", "bytes=0-")[6:-1])
        rest = FILE[start:]
        return make.answer(rest if cut is None else rest[:cut], 206 if start else 200, length=len(rest))

    return answer


def test_download_goes_on_where_it_broke(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """A file that broke three times is fetched once, checked, and put in place whole."""
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


def test_download_goes_on_in_another_process(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """What a first call left behind is used by the next one, also when it is wrong."""
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
def test_download_without_ranges(scripted: Any, make: Any, face: Any, tmp_path: Path, size: int) -> None:
    """A server that ignores ranges, or that has an empty file, is no trouble."""
    content = FILE[:size]
    one = make.task(state="succeeded", artifacts=[artifact(content)])
    scripted.answers = [make.answer(one), make.answer(content[:5], length=size or 1), make.answer(content)]
    assert face().call("download", "video_01", "video.mp4", tmp_path).read_bytes() == content


def test_download_follows_redirects_without_the_key(
    scripted: Any, make: Any, tmp_path: Path, no_environment: None
) -> None:
    """A presigned URL of another host gets the range but never the API key."""
    one = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    elsewhere = scripted.url.replace("127.0.0.1", "localhost") + "/bucket/file?signature=1"
    moved = make.answer(b"", 307, headers={"Location": elsewhere})
    scripted.answers = [one, moved, ranged(make, 1_500_000), moved, ranged(make)]
    with Client(scripted.url, api_key="secret", retry=FAST) as client:
        path = client.download("video_01", "video.mp4", tmp_path)
    assert path.read_bytes() == FILE
    assert [s.headers.get("authorization") for s in scripted.seen] == ["Bearer secret"] * 2 + [
        None,
        "Bearer secret",
        None,
    ]
    assert scripted.seen[-1].headers["range"].startswith("bytes=1")


def test_download_repeats_a_500_of_the_store_but_not_ours(
    scripted: Any, make: Any, face: Any, tmp_path: Path
) -> None:
    """S3's InternalError is one to repeat; a bug of Daybreak's is told at once."""
    one = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    errs = make.answer(b"<Error><Code>InternalError</Code></Error>", 500)
    scripted.answers = [one, errs, ranged(make, 1_500_000), errs, ranged(make)]
    assert face().call("download", "video_01", "video.mp4", tmp_path).read_bytes() == FILE
    scripted.answers = [one, make.problem(500, "internal")]
    before = len(scripted.seen)
    with pytest.raises(ServerError):
        face().call("download", "video_01", "video.mp4", tmp_path / "again.mp4")
    assert len(scripted.seen) == before + 2


def test_download_of_other_bytes(scripted: Any, make: Any, face: Any, tmp_path: Path) -> None:
    """Bytes that are not the promised ones never reach the target; nothing is left behind."""
    one = make.answer(make.task(state="succeeded", artifacts=[artifact()]))
    for wrong in (b"\1" * len(FILE), b"\1" * (len(FILE) + 5)):
        scripted.answers = [one, make.answer(wrong)]
        with pytest.raises(DownloadError):
            face().call("download", "video_01", "video.mp4", tmp_path)
        assert not (tmp_path / "video.mp4").exists()
    scripted.answers = [one]
    with pytest.raises(DownloadError, match=r"no artifact 'nope.mp4'; its artifacts: video.mp4"):
        face().call("download", "video_01", "nope.mp4", tmp_path)


def test_other_calls(scripted: Any, make: Any, face: Any) -> None:
    """Cancel, replay, estimate, batch, pool and preview read their answers."""
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


def test_leaving_a_stream_early_closes_it(scripted: Any, make: Any, no_environment: None) -> None:
    """A loop that is left, sync or async, leaves no connection open (warnings are errors here)."""
    scripted.answers = [make.stream(make.event("queued", "1-0"), make.event("started", "2-0"))]
    with Client(scripted.url, retry=FAST) as client:
        for _ in client.events("video_01"):
            break

    async def leave() -> None:
        async with AsyncClient(scripted.url, retry=FAST) as client:
            async for _ in client.events("video_01"):
                break

    asyncio.run(leave())
