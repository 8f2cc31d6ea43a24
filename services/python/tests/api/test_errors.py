"""Each error code, except those of API keys, occurs in at least one test, and errors say what to do."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from api_support import Api, Serving, make_settings

from daybreak.wire import ErrorCode
from daybreak.wire.errors import TYPE_PREFIX
from testkit.valkey import Server

JSON = {"Content-Type": "application/json"}
API_KEY_CODES = {ErrorCode.BAD_KEY, ErrorCode.QUOTA_EXCEEDED}
"""Codes that exist for API keys, which are not implemented yet."""


@pytest.fixture(scope="module")
def api(valkey_session: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that the tests of this module share. No test leaves anything in it that disturbs another one."""
    with Serving(valkey_session, tmp_path_factory.mktemp("errors"), 0, make_settings()) as started:
        yield started


def post(api: Api, body: Any, path: str = "/v1/tasks", **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.client.post(path, content=content, headers={**JSON, **headers})


def good() -> dict[str, Any]:
    return {"pool": "echo", "input": {}}


def get(path: str, **headers: str) -> Callable[[Api], httpx2.Response]:
    return lambda api: api.client.get(path.replace("{task}", api.submit()["id"]), headers=headers)


def conflict(api: Api) -> httpx2.Response:
    return api.client.delete(f"/v1/tasks/{api.submit()['id']}")


def mismatch(api: Api) -> httpx2.Response:
    post(api, good(), **{"Idempotency-Key": "k"})
    return post(api, {**good(), "priority": "low"}, **{"Idempotency-Key": "k"})


def shutting_down(api: Api) -> httpx2.Response:
    task = api.submit()["id"]
    api.context.broadcaster.closing = True
    try:
        return api.client.get(f"/v1/tasks/{task}/events")
    finally:
        api.context.broadcaster.closing = False


REACHED: dict[ErrorCode, Callable[[Api], httpx2.Response]] = {
    ErrorCode.BAD_JSON: lambda api: post(api, b'{"pool": '),
    ErrorCode.BAD_CURSOR: get("/v1/tasks?after=nonsense"),
    ErrorCode.BAD_EVENT_ID: get("/v1/tasks/{task}/events", **{"Last-Event-ID": "12"}),
    ErrorCode.BAD_HEADER: lambda api: post(api, good(), **{"Idempotency-Key": "two words"}),
    ErrorCode.HOST_NOT_ALLOWED: get("/v1/tasks", Host="evil.example"),
    ErrorCode.ORIGIN_NOT_ALLOWED: lambda api: post(api, good(), Origin="https://evil.example"),
    ErrorCode.NOT_FOUND: get("/v1/tasks/echo_01AAAAAAAAAAAAAAAAAAAAAAAA"),
    ErrorCode.NO_SUCH_POOL: lambda api: post(api, {**good(), "pool": "nowhere"}),
    ErrorCode.NO_SUCH_ARTIFACT: get("/v1/tasks/{task}/artifacts/video.mp4"),
    ErrorCode.METHOD_NOT_ALLOWED: lambda api: api.client.put("/v1/tasks"),
    ErrorCode.NOT_ACCEPTABLE: get("/v1/tasks/{task}/events", Accept="application/json"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: lambda api: api.client.post("/v1/tasks", content=b"{}"),
    ErrorCode.CONFLICT: conflict,
    ErrorCode.TOO_LARGE: lambda api: post(api, b'{"pool": "' + b"x" * (1 << 20) + b'"}'),
    ErrorCode.INVALID_INPUT: lambda api: post(api, {**good(), "input": {"steps": -1}}),
    ErrorCode.IDEMPOTENCY_MISMATCH: mismatch,
    ErrorCode.SHUTTING_DOWN: shutting_down,
}
REACHED_ELSEWHERE = {
    ErrorCode.BAD_RANGE: "test_files",
    ErrorCode.TOO_MANY_STREAMS: "test_streams",
    ErrorCode.QUEUE_FULL: "below",
    ErrorCode.STORE_UNAVAILABLE: "below",
    ErrorCode.INTERNAL: "below",
    ErrorCode.NO_KEY: "registry_api/test_access",
    ErrorCode.FORBIDDEN: "registry_api/test_access",
    ErrorCode.NAME_NOT_RESOLVED: "registry_api/test_workers",
    ErrorCode.NOT_READY: "routing/test_proxy",
    ErrorCode.DEADLINE_PASSED: "routing/test_proxy",
    ErrorCode.GROUP_FAILED: "routing/test_failures",
    ErrorCode.MODEL_NOT_FOUND: "workloads/test_embed",
    ErrorCode.SESSIONS_FULL: "sessions/test_with_redis",
    ErrorCode.INVALID_AUDIO: "sessions/test_recordings",
}


def test_every_code_is_reached_by_a_test() -> None:
    assert set(REACHED) | set(REACHED_ELSEWHERE) | API_KEY_CODES == set(ErrorCode)


def check(response: httpx2.Response, code: ErrorCode) -> dict[str, Any]:
    """Check all fields of a response that must be a problem (RFC 9457) with this code. Return the problem."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code.value, problem
    assert response.status_code == problem["status"] == code.status
    assert problem["title"] == code.title
    assert problem["type"] == TYPE_PREFIX + code.value
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["detail"]
    assert None not in problem.values()
    return problem


@pytest.mark.parametrize("code", REACHED, ids=lambda code: code.value)
def test_a_code_has_its_status_title_and_request_id(api: Api, code: ErrorCode) -> None:
    """Each error is a problem of RFC 9457 without null values."""
    check(REACHED[code](api), code)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pool": "echo", "input": {"steps": "many"}}, "input.steps"),
        ({"pool": "echo", "input": {"nonsense": 1}}, "input.nonsense"),
        ({"pool": "echo", "input": {}, "nonsense": 1}, "nonsense"),
        ({"pool": "echo", "input": []}, "input"),
        ({"pool": "echo"}, "input"),
        ({"input": {}}, "pool"),
        ({"pool": "No Pool", "input": {}}, "pool"),
        ({"pool": 5, "input": {}}, "pool"),
        ([], "body"),
        ("text", "body"),
        (None, "body"),
        ({**good(), "priority": "urgent"}, "priority"),
        ({**good(), "start_at": "soon"}, "start_at"),
        ({**good(), "start_at": "2026-11-21T12:00:00"}, "start_at"),
        ({**good(), "start_within_s": 0}, "start_within_s"),
        ({**good(), "run_within_s": -1}, "run_within_s"),
        ({**good(), "max_strikes": 0}, "max_strikes"),
        ({**good(), "metadata": {"a": 1}}, "metadata.a"),
        ({**good(), "metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({**good(), "metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"pool": "clips", "input": {"prompt": "x", "frames": 16}}, "input.frames"),
        ({"pool": "clips", "input": {"prompt": "x", "size": "65x64"}}, "input.size"),
        ({"pool": "clips", "input": {"prompt": "x" * 2001}}, "input.prompt"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_invalid_field_is_named(api: Api, body: Any, field: str) -> None:
    """The error has the field's path."""
    problem = check(post(api, body), ErrorCode.INVALID_INPUT)
    named = [error["field"] for error in problem["errors"]]
    assert any(name == field or name.startswith(f"{field}.") for name in named), named


def test_the_detail_says_what_to_do(api: Api) -> None:
    """The detail is the workload's own message, without pydantic's prefix."""
    response = post(api, {"pool": "clips", "input": {"prompt": "x", "frames": 16}})
    assert response.json()["detail"] == "frames must be 4n+1; 16 is not. Try 17."


@pytest.mark.parametrize("key", ["a", "Inp", "string"])
def test_the_detail_names_the_field(api: Api, key: str) -> None:
    """The detail begins with the field's path, even if the field's name happens to occur in pydantic's message."""
    problem = post(api, {**good(), "metadata": {key: 1}}).json()
    assert problem["detail"].startswith(f"metadata.{key}: ")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("state=x", "state"),
        ("order=up", "order"),
        ("status=running", "status"),
        ("limit=5&cursor=x", "cursor"),
        ("=x", "query"),
    ],
)
def test_an_invalid_query_parameter_is_named(api: Api, query: str, field: str) -> None:
    """The error names a query parameter in the same way as a field."""
    problem = check(api.client.get(f"/v1/tasks?{query}"), ErrorCode.INVALID_INPUT)
    assert problem["errors"][0]["field"] == field
    assert problem["detail"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "event_id",
    ["x", "1", "1-", "-1", "1-2-3", "1-2 ", "١-٢", "9" * 21 + "-0", f"{1 << 64}-0", f"0-{1 << 64}"],
)
def test_an_event_id_is_two_numbers(api: Api, event_id: str) -> None:
    """Any other event id is refused with bad_event_id, and no stream is opened."""
    response = api.client.get(f"/v1/tasks/{api.submit()['id']}/events", params={"after": event_id})
    check(response, ErrorCode.BAD_EVENT_ID)


@pytest.mark.parametrize("tenant", ["-a", "a b", "x" * 65, "{a}", "a/b", ""])
def test_a_tenant_is_a_plain_name(api: Api, tenant: str) -> None:
    """A malformed Daybreak-Tenant gets bad_header, because the name becomes part of Redis keys."""
    check(api.client.get("/v1/tasks", headers={"Daybreak-Tenant": tenant}), ErrorCode.BAD_HEADER)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "tab\there", "é"])
def test_an_idempotency_key_is_visible_ascii(api: Api, key: str) -> None:
    """A malformed Idempotency-Key is refused rather than changed into a valid one."""
    response = api.client.post("/v1/tasks", json=good(), headers={"Idempotency-Key": key.encode()})
    check(response, ErrorCode.BAD_HEADER)


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(start_api: Callable[..., Api]) -> None:
    """A body without a Content-Length is refused when it exceeds the limit, not when it ends."""
    api = start_api(http={"max_body_bytes": 1000})
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 100_000_000:
            sent += 1000
            yield b"x" * 1000

    try:
        response = httpx2.post(
            f"{api.url}/v1/tasks", content=endless(), headers=JSON, timeout=60, verify=False
        )
        check(response, ErrorCode.TOO_LARGE)
    except httpx2.WriteError:
        pass  # The server had responded and disconnected before the client read the response.
    assert sent < 50_000_000


def test_a_large_content_length_is_refused_before_the_body(start_api: Callable[..., Api]) -> None:
    """The response comes before the client has sent any of the request's body."""
    api = start_api(http={"max_body_bytes": 1000})
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert raw.recv(4096).split()[1] == b"413"


def test_large_headers_are_refused(api: Api) -> None:
    """More than 32 KiB of headers are refused with 431 too_large."""
    response = api.client.get("/healthz", headers={"X-Large": "x" * 40_000})
    assert (response.status_code, response.json()["code"], response.json()["status"]) == (
        431,
        "too_large",
        431,
    )


def test_a_submit_to_a_full_queue_is_503(start_api: Callable[..., Api]) -> None:
    """A submit beyond max_queued gets 503 queue_full with Retry-After, and nothing of it is stored."""
    api = start_api(pools={"echo": {"workload": "echo", "max_queued": 2}})
    api.submit()
    api.submit()
    response = post(api, good())
    problem = check(response, ErrorCode.QUEUE_FULL)
    assert int(response.headers["retry-after"]) >= 1
    assert problem["retry_after_s"] > 0
    batch = post(api, {"tasks": [good()]}, "/v1/tasks:batch").json()["results"][0]
    assert (batch["status"], batch["error"]["code"]) == (503, "queue_full")
    assert len(api.client.get("/v1/tasks").json()["data"]) == 2
    counted = 'code="queue_full",method="POST",route="/v1/tasks",status="503"'
    assert f"daybreak_http_requests_total{{{counted}}} 1.0" in api.client.get("/metrics").text


def test_a_full_store_refuses_new_tasks_only(api: Api, valkey: Server) -> None:
    """A store without free memory refuses new tasks with 503; reading and cancelling still work."""
    task = api.submit()
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            check(post(api, good()), ErrorCode.QUEUE_FULL)
            assert api.get(task["id"])["state"] == "queued"
            assert api.client.post(f"/v1/tasks/{task['id']}/cancel").json()["state"] == "cancelled"
        finally:
            client.config_set("maxmemory", 0)


def test_a_bug_is_a_500_with_a_request_id_and_a_traceback(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception gets the code `internal`. The log has its traceback, with the request id."""

    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("daybreak_server.api.serializers.task", broken)
    response = post(api, good(), **{"X-Request-Id": "mine-1"})
    problem = check(response, ErrorCode.INTERNAL)
    assert problem["request_id"] == "mine-1"
    assert "ZeroDivision" not in response.text
    logged = [record for record in caplog.records if "mine-1" in record.getMessage()]
    assert logged
    assert logged[0].exc_info


def test_a_request_id_is_echoed_or_generated(api: Api) -> None:
    """The server returns a valid X-Request-Id of the client, and otherwise generates one."""
    assert api.client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for invalid in (b"with space", b"x" * 129, b"\xff"):
        generated = api.client.get("/healthz", headers={"X-Request-Id": invalid}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{16}", generated)
