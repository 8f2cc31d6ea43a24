"""What an administrator of the server sees: health, readiness, metrics, documentation and recovery from outages."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from api_support import POOL, Api, FakeLeader, Serving, make_settings

from testkit.valkey import Server, start_valkey
from testkit.waiting import wait_until

ROOT = Path(__file__).parents[4]


@pytest.fixture
def stoppable_valkey(tmp_path: Path) -> Iterator[Server]:
    """A Valkey that the test may stop."""
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_a_server_is_alive_and_ready(api: Api) -> None:
    """Its root path redirects to the documentation."""
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/readyz").json() == {"status": "ready"}
    root = api.client.get("/", follow_redirects=False)
    assert (root.status_code, root.headers["location"]) == (307, "/docs")


ELSEWHERE = {"embeddings and reranking", "sessions"}
"""Tags of the operations whose bodies need a special pool. Other tests cover them."""
NOT_HERE = {
    *("/debug", "/v1/pools/{name}/batching", "/v1/sessions/{id}"),
    *("/queue_status/{session_id}", "/session/{user}/{language}", "/stats", "/ray/stats"),
}
"""Routes that find nothing here, because there are no pools that answer requests or serve sessions."""
OF_SESSIONS = {"session_id": "x_01JD0000000000000000000000", "user": "u", "language": "en-de"}


def add_worker(api: Api) -> None:
    body = {"id": "w1", "incarnation": "a", "url": "http://127.0.0.1:7000", "version": "1", "engines": []}
    body |= {"gpus": [], "memory_bytes": 1, "memory_free_bytes": 1}
    api.client.post("/v1/workers", json=body).raise_for_status()
    wait_until(lambda: api.client.get("/v1/workers/w1").is_success, 30, "the worker to be listed")


def test_head_matches_get_on_every_route(api: Api, leader: FakeLeader) -> None:
    """HEAD has the status and headers of GET without the body, and opens no event stream.

    The OpenAPI document does not list HEAD.
    """
    task = api.submit()["id"]
    claim = leader.claim()
    leader.queue.preview(claim.lease, b"picture", content_type="image/webp", ttl_s=60)
    leader.finish(claim, leader.upload(claim, "echo.txt", b"hello"))
    document = api.client.get("/openapi.json").json()
    routes = [path for path, item in document["paths"].items() if "get" in item]
    assert len(routes) >= 10
    api.client.post("/v1/models/register", json={"alias": "small", "source": "x"}).raise_for_status()
    add_worker(api)
    statuses = {}
    for route in [*routes, "/docs", "/openapi.json", "/"]:
        name = "echo" if "pools" in route else "echo.txt"
        path = route.format(id="w1" if "workers" in route else task, name=name, alias="small", **OF_SESSIONS)
        head = api.client.head(path, follow_redirects=False)
        full = api.client.get(path, follow_redirects=False)
        assert (head.status_code, head.content) == (full.status_code, b""), path
        for name in ("content-type", "content-length", "location", "etag", "cache-control"):
            if route != "/metrics" or name != "content-length":
                assert head.headers.get(name) == full.headers.get(name), (path, name)
        if route not in NOT_HERE:
            statuses[route] = head.status_code
        assert "head" not in document["paths"].get(route, {})
    assert set(statuses.values()) == {200, 307}
    assert api.client.head("/v1/tasks/nothing").status_code == 404
    assert api.client.head("/v1/estimate").status_code == 405


def test_head_of_a_stream_ends_at_once(api: Api) -> None:
    """HEAD on the events of a task that has not ended returns the headers of a stream, and starts no reader."""
    task = api.submit()["id"]
    response = api.client.head(f"/v1/tasks/{task}/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert not api.context.broadcaster.feed(POOL).reading


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/tasks", "GET, HEAD, POST"),
        ("PUT", "/v1/tasks/echo_01AAAAAAAAAAAAAAAAAAAAAAAA", "GET, HEAD, DELETE"),
        ("PUT", "/v1/tasks/echo_01AAAAAAAAAAAAAAAAAAAAAAAA/artifacts/x", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("GET", "/v1/estimate", "POST"),
    ],
)
def test_allow_has_every_method_of_the_path(api: Api, method: str, path: str, allow: str) -> None:
    """The Allow header of a 405 lists the methods of all routes with this path, not only those of the first route."""
    response = api.client.request(method, path)
    assert (response.status_code, response.headers.get_list("allow")) == (405, [allow])


def test_a_server_survives_an_outage_of_the_store(stoppable_valkey: Server, tmp_path: Path) -> None:
    """Without Redis the server is alive but not ready, and responds with 503 and Retry-After.

    When Redis is back, the server recovers by itself.
    """
    with Serving(stoppable_valkey, tmp_path, 0, make_settings(redis={"timeout_s": 1.0})) as api:
        task = api.submit()
        port = stoppable_valkey.port
        stoppable_valkey.stop()
        for response in (
            api.client.get(f"/v1/tasks/{task['id']}"),
            api.client.post("/v1/tasks", json={"pool": "echo", "input": {}}),
            api.client.get("/v1/tasks"),
            api.client.get(f"/v1/tasks/{task['id']}/events"),
            api.client.get("/readyz"),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            assert int(response.headers["retry-after"]) >= 1
        assert api.client.get("/healthz").status_code == 200
        assert api.client.get("/metrics").status_code == 200
        batch = api.client.post("/v1/tasks:batch", json={"tasks": [{"pool": "echo", "input": {}}]})
        assert batch.json()["results"][0]["status"] == 503
        stoppable_valkey.start()
        assert stoppable_valkey.port == port
        wait_until(lambda: api.client.get("/readyz").status_code == 200, 60, "readiness")
        assert api.get(task["id"])["state"] == "queued"
        expiring = api.submit(start_within_s=0.1)
        # Only the ticker expires tasks, so the ticker has recovered too.
        api.until(expiring["id"], "expired")


def test_a_wrong_password_is_reported_and_the_server_stays_alive(
    stoppable_valkey: Server, tmp_path: Path
) -> None:
    """The error mentions the password, because a retry does not help until an administrator corrects the password."""
    with stoppable_valkey.client() as client:
        client.config_set("requirepass", "another")
    with Serving(stoppable_valkey, tmp_path, 0, make_settings()) as api:
        response = api.client.get("/v1/pools")
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert "password" in response.json()["detail"]
        assert api.client.get("/healthz").status_code == 200


def test_a_server_starts_without_its_store(stoppable_valkey: Server, tmp_path: Path) -> None:
    """A gateway that starts before Redis is not ready, and becomes ready by itself."""
    stoppable_valkey.stop()
    with Serving(stoppable_valkey, tmp_path, 0, make_settings(redis={"timeout_s": 1.0})) as api:
        assert api.client.get("/readyz").status_code == 503
        stoppable_valkey.start()
        wait_until(lambda: api.client.get("/readyz").status_code == 200, 60, "readiness")


def metric(api: Api, name: str, **labels: str) -> float | None:
    """The value of one series."""
    for line in api.client.get("/metrics").text.splitlines():
        match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if match and dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")) == labels:
            return float(match[2])
    return None


def test_metrics_cover_requests_queue_groups_and_seconds(api: Api, leader: FakeLeader) -> None:
    """The metrics show requests by route, tasks by state, groups, ended tasks, GPU seconds, streams and tick lag."""
    api.submit()
    api.submit()
    api.client.get("/nothing/here")
    claim = leader.claim()

    def counted() -> bool:
        return metric(api, "daybreak_pool_tasks", pool=POOL, state="running") == 1

    wait_until(counted, 30, "the running task to be counted")
    assert metric(api, "daybreak_pool_tasks", pool=POOL, state="queued") == 1
    assert metric(api, "daybreak_pool_live_tasks", pool=POOL) == 2
    assert metric(api, "daybreak_groups", pool=POOL, state="busy") == 1
    assert metric(api, "daybreak_tasks_submitted_total", pool=POOL) == 2
    submits = {"method": "POST", "route": "/v1/tasks", "status": "202", "code": "none"}
    assert metric(api, "daybreak_http_requests_total", **submits) == 2
    unknown = {"method": "GET", "route": "unmatched", "status": "404", "code": "not_found"}
    assert metric(api, "daybreak_http_requests_total", **unknown) == 1
    assert metric(api, "daybreak_http_request_seconds_count", method="POST", route="/v1/tasks") == 2
    with api.client.stream("GET", f"/v1/tasks/{claim.lease.task}/events") as response:
        lines = response.iter_lines()
        next(lines)
        assert _open(api, "sse") == 1
    leader.finish(claim)
    wait_until(
        lambda: metric(api, "daybreak_tasks_ended_total", pool=POOL, state="succeeded") == 1,
        30,
        "the task to end",
    )
    used = metric(api, "daybreak_gpu_used_seconds_total", pool=POOL)
    assert used is not None
    assert used > 0
    lag = metric(api, "daybreak_tick_lag_seconds", pool=POOL)
    assert lag is not None
    assert 0 <= lag < 30
    wait_until(lambda: _open(api, "sse") == 0, 30, "the stream to be gone")


def _open(api: Api, kind: str) -> float | None:
    return api.context.metrics.registry.get_sample_value("daybreak_stream_subscribers", {"kind": kind})


def test_unknown_methods_and_paths_create_no_series(api: Api) -> None:
    """A client can invent any number of methods and paths."""
    for n in range(5):
        api.client.request(f"M{n}", f"/odd/{n}")
    text = api.client.get("/metrics").text
    assert "M0" not in text
    assert "/odd" not in text


def test_a_pool_shows_its_workload_schema_and_wake(api: Api) -> None:
    """The error for a pool that does not exist is ``no_such_pool``."""
    pools = api.client.get("/v1/pools").json()["data"]
    assert [pool["name"] for pool in pools] == ["echo", "clips"]
    pool = api.client.get("/v1/pools/clips").json()
    assert pool["workload"] == "video"
    assert "prompt" in pool["input_schema"]["required"]
    assert pool["wake"]["phase"] == "zero"
    assert (pool["queued"], pool["running"], pool["delayed"]) == (0, 0, 0)
    assert api.client.get("/v1/pools/none").json()["code"] == "no_such_pool"


def examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Yield every request that the document shows: its method, path, body and operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                yield method, path, None, operation
            for example in (content or {}).get("examples", {}).values():
                yield method, path, example["value"], operation


def test_every_example_of_the_document_runs_as_it_stands(start_api: Callable[..., Api]) -> None:
    """The server accepts each body of the OpenAPI document, and each path responds with a documented status."""
    api = start_api()
    document = api.client.get("/openapi.json").json()
    bodies_sent = 0
    operations = set()
    for method, path, body, operation in examples(document):
        if operation["operationId"] in {"follow", "replay", "delete_task", "get_artifact"}:
            task = api.submit()["id"]  # These operations need an ended task.
            api.client.post(f"/v1/tasks/{task}/cancel")
        else:
            task = api.submit()["id"]
        named = {p["name"]: p["example"] for p in operation.get("parameters", []) if "example" in p}
        url = path.format(**{"id": task, "name": "echo.txt", "alias": "none", **OF_SESSIONS, **named})
        response = api.client.request(method.upper(), url, json=body)
        assert str(response.status_code) in operation["responses"], (method, url, response.text)
        assert body is None or response.status_code < 300, (method, url, response.text)
        operations.add(operation["operationId"])
        bodies_sent += body is not None
    assert bodies_sent >= 6
    rest = {
        o["operationId"]
        for i in document["paths"].values()
        for o in i.values()
        if o["tags"][0] not in ELSEWHERE
    }
    assert operations >= rest - {"set_batching"}  # only pools that batch have this operation


def test_every_curl_line_of_the_page_runs_as_it_stands(start_api: Callable[..., Api]) -> None:
    """The curl lines of the page ``/docs`` can be pasted.

    The test splits each line as a shell does, and sends the requests whose URLs have no placeholder such as ``{id}``.
    """
    import shlex

    api = start_api()
    page = api.client.get("/docs").text
    lines = [unescape(re.sub(r"<[^>]+>", "", code)) for code in re.findall(r"<code>(curl.*?)</code>", page)]
    commands_run = 0
    for line in lines:
        words = shlex.split(line)
        url = next(word for word in words if word.startswith("http"))
        if "{" in url or url.endswith(tuple(NOT_HERE)):
            continue
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        body = words[words.index("-d") + 1] if "-d" in words else None
        path = url.removeprefix("http://127.0.0.1:8000")
        headers = {"Content-Type": "application/json"} if body else {}
        response = api.client.request(method, path, content=body, headers=headers)
        assert response.status_code < 300, (line, response.text)
        commands_run += 1
    assert commands_run >= 10
    assert "cdn" not in page  # the page must work without internet access
    assert not re.search(r"(src|href)=\"http", page)


def test_a_server_without_a_video_pool_documents_no_generate(start_api: Callable[..., Api]) -> None:
    """The document matches the configured pools."""
    api = start_api(pools={"clips": {"workload": "echo"}})
    assert "/generate" not in api.client.get("/openapi.json").json()["paths"]
    response = api.client.post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.json()["code"]) == (404, "no_such_pool")


def test_generate_is_documented_with_the_pool_that_it_submits_to(start_api: Callable[..., Api]) -> None:
    """``/generate`` submits to the pool `video`, even if another pool with the video workload comes first."""
    api = start_api(pools={"echo": {}, "clips": {"workload": "video"}, "video": {}})
    submit = api.client.get("/openapi.json").json()["paths"]["/generate"]["post"]
    assert submit["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Input_video"
    }
    assert api.client.post("/generate", json={"prompt": "x"}).json()["pool"] == "video"


def test_the_committed_openapi_document_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file docs/openapi.json is what the code generates.

    For an outdated file, the check shows the diff and exits with 1.
    """
    spec = importlib.util.spec_from_file_location("openapi_tool", ROOT / "tools" / "openapi.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["openapi.py", "--check"])
    assert tool.main() == 0, capsys.readouterr().out[-3000:]
    stale = tmp_path / "openapi.json"
    stale.write_text(tool.PATH.read_text().replace('"version": "1"', '"version": "0"'))
    monkeypatch.setattr(tool, "PATH", stale)
    assert tool.main() == 1
    assert '-  "version": "0"' in capsys.readouterr().out


def test_every_schema_that_the_openapi_document_refers_to_is_in_it(api: Api) -> None:
    """A generator of clients would fail on a missing schema."""
    document = api.client.get("/openapi.json")
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', document.text))
    assert "RegisterModelRequest" in referred
    assert referred <= set(document.json()["components"]["schemas"])
    assert "x-problems" not in document.text
