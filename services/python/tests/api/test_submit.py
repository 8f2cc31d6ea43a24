"""Submitting tasks: what the API accepts, which fields a task has, and that a repeated key returns the same task."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import Api, FakeLeader

from daybreak.wire import IDEMPOTENCY_KEY
from daybreak_server.domain import private_inputs
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tracing import TraceContext
from testkit.waiting import wait_until


def test_an_accepted_task_has_the_fields_of_the_wire(api: Api) -> None:
    """The response has Location, links, queue position and wake. A field that does not apply is absent, not null."""
    response = api.client.post(
        "/v1/tasks",
        json={"pool": "echo", "input": {"message": "hi"}, "priority": "high", "metadata": {"order": "42"}},
    )
    task = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == task["links"]["self"] == f"/v1/tasks/{task['id']}"
    assert task["state"] == "queued"
    assert task["priority"] == "high"
    assert task["metadata"] == {"order": "42"}
    assert task["queue"]["position"] == 1
    assert task["wake"]["phase"] == "detect"
    assert task["input"] | {"message": "hi", "steps": 5} == task["input"]
    assert datetime.fromisoformat(task["created_at"]).tzinfo is UTC or task["created_at"].endswith("Z")
    assert len(task["created_at"]) == len("2026-11-21T12:00:00.000Z")
    assert None not in task.values()
    assert {"progress", "started_at", "error", "usage", "phase"}.isdisjoint(task)
    assert api.get(task["id"])["id"] == task["id"]


TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "congo=t61"}


def test_each_way_to_submit_passes_the_callers_trace_to_the_group(api: Api, leader: FakeLeader) -> None:
    """The group gets the metadata, and a trace that a rank can continue. Clients do not see the tracestate."""
    expected = TraceContext(**TRACE)
    task = {"pool": "echo", "input": {}, "metadata": {"order": "42"}}
    shown = api.client.post("/v1/tasks", json=task, headers=TRACE).json()
    assert "congo" not in str(shown)
    claim = leader.claim()
    assert (claim.trace_context, claim.metadata) == (expected, {"order": "42"})
    leader.finish(claim)
    api.client.post(f"/v1/tasks/{shown['id']}/replay", headers=TRACE)
    api.client.post("/v1/tasks:batch", json={"tasks": [task]}, headers=TRACE)
    for _ in range(2):
        claim = leader.claim()
        assert claim.trace_context == expected
        leader.finish(claim)


@pytest.mark.parametrize("wrong", ["x", f"00-{'0' * 32}-{'b' * 16}-01", "é"])
def test_a_malformed_trace_is_ignored_and_the_task_is_accepted(
    api: Api, leader: FakeLeader, wrong: str
) -> None:
    headers = [("traceparent", wrong.encode()), ("tracestate", b"congo=t61")]
    assert (
        api.client.post("/v1/tasks", json={"pool": "echo", "input": {}}, headers=headers).status_code == 202
    )
    assert leader.claim().trace_context is None


def test_the_same_key_and_body_give_the_same_task(api: Api) -> None:
    """The repeat gets 200 with Idempotent-Repeat, whatever the whitespace and the order of fields in its body."""
    body = {"pool": "echo", "input": {"message": "x", "steps": 1}}
    headers = {"Idempotency-Key": "k-1"}
    first = api.client.post("/v1/tasks", json=body, headers=headers)
    other_text = '{ "input": {"steps": 1, "message": "x"},  "pool": "echo"}'
    second = api.client.post(
        "/v1/tasks", content=other_text, headers={**headers, "Content-Type": "application/json"}
    )
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotent-repeat" not in first.headers
    assert second.headers["idempotent-repeat"] == "true"
    assert second.headers["location"] == first.headers["location"]


def test_a_key_belongs_to_its_pool(start_api: Callable[..., Api]) -> None:
    """The same key makes one task in each pool. A repeated submit to a pool finds the task of that pool."""
    api = start_api(pools={"other": {"workload": "echo"}})
    key = {"Idempotency-Key": "of-both"}
    first, second = (api.submit(pool=pool, headers=key) for pool in ("echo", "other"))
    assert (first["pool"], second["pool"]) == ("echo", "other")
    assert first["id"] != second["id"]
    for task in (first, second):
        assert api.submit(pool=task["pool"], headers=key, status=200)["id"] == task["id"]


def test_a_key_lives_as_long_as_its_task(api: Api) -> None:
    """A key outlives the end of its task, and is free again when the task is deleted."""
    key = {"Idempotency-Key": "for-life"}
    first = api.submit(headers=key)
    assert api.client.post(f"/v1/tasks/{first['id']}/cancel").status_code == 202
    assert api.submit(headers=key, status=200)["state"] == "cancelled"
    assert api.client.delete(f"/v1/tasks/{first['id']}").status_code == 204
    assert api.submit(headers=key)["id"] != first["id"]


def test_all_descriptions_of_a_key_agree(api: Api) -> None:
    """The API describes keys with one text. No page of the docs states the lifetime of keys in hours or days."""
    parameters = api.client.get("/openapi.json").json()["paths"]["/v1/tasks"]["post"]["parameters"]
    assert IDEMPOTENCY_KEY in next(
        parameter["description"] for parameter in parameters if parameter["name"] == "Idempotency-Key"
    )
    for page in (Path(__file__).parents[4] / "docs").glob("*.md"):
        for line in page.read_text().splitlines():
            if re.search("idempoten", line, re.IGNORECASE):
                assert not re.search(r"\b\d+ (h|hours|days)\b", line), f"{page.name}: {line}"


def test_a_key_belongs_to_its_tenant(api: Api) -> None:
    """Another tenant may use the same key for another task."""
    key = {"Idempotency-Key": "shared"}
    first = api.submit(headers=key)
    second = api.submit(headers={**key, "Daybreak-Tenant": "other"})
    assert first["id"] != second["id"]
    assert second["tenant"] == "other"


def test_generate_submits_to_the_video_pool(api: Api) -> None:
    """The body of POST /generate is the input itself. Here the video pool is called `clips`."""
    response = api.client.post("/generate", json={"prompt": "a red circle moving left"})
    assert response.status_code == 202, response.text
    assert response.json()["pool"] == "clips"
    assert response.json()["input"]["prompt"] == "a red circle moving left"
    assert None not in response.json()["input"].values()


def test_a_batch_has_a_result_for_each_task_in_order(api: Api) -> None:
    """A batch with valid and invalid tasks gets 207. A repeated key finds the same tasks again."""
    tasks: list[dict[str, Any]] = [
        {"pool": "echo", "input": {"message": "0"}},
        {"pool": "echo", "input": {"steps": -1}},
        {"pool": "clips", "input": {"prompt": "a blue square"}},
        {"pool": "none", "input": {}},
        {"pool": "echo", "input": {"message": "4"}},
    ]
    headers = {"Idempotency-Key": "batch-1"}
    response = api.client.post("/v1/tasks:batch", json={"tasks": tasks}, headers=headers)
    assert response.status_code == 207
    results = response.json()["results"]
    assert [r["status"] for r in results] == [202, 422, 202, 404, 202]
    assert results[1]["error"]["errors"][0]["field"] == "input.steps"
    assert results[3]["error"]["code"] == "no_such_pool"
    assert [results[i]["task"]["input"].get("message") for i in (0, 4)] == ["0", "4"]
    again = api.client.post("/v1/tasks:batch", json={"tasks": tasks}, headers=headers).json()["results"]
    assert [r["status"] for r in again] == [200, 422, 200, 404, 200]
    assert [r["task"]["id"] for r in again if "task" in r] == [
        r["task"]["id"] for r in results if "task" in r
    ]


def test_a_pool_that_answers_requests_takes_no_tasks(start_api: Callable[..., Api]) -> None:
    """The workload ``echo-serve`` takes no tasks. The error says where to send requests to its pool."""
    client = start_api(pools={"answers": {"workload": "echo-serve"}}).client
    task = {"pool": "answers", "input": {}}
    for response in (client.post("/v1/tasks", json=task), client.post("/v1/estimate", json=task)):
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
        (error,) = response.json()["errors"]
        assert error["field"] == "pool"
        assert "/v1/pools/answers/serve/" in error["message"]
    examples = client.get("/openapi.json").json()["paths"]["/v1/tasks"]["post"]["requestBody"]
    assert "answers" not in examples["content"]["application/json"]["examples"]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_1_to_100_tasks(api: Api, count: int) -> None:
    """A batch with no task or more than 100 tasks is refused."""
    response = api.client.post("/v1/tasks:batch", json={"tasks": [{"pool": "echo", "input": {}}] * count})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "tasks"


def test_a_start_time_delays_a_task_unless_it_is_past(api: Api) -> None:
    """A delayed task is shown as queued. A start time too far in the future is refused."""
    later = datetime.now(UTC) + timedelta(hours=1)
    task = api.submit(start_at=later.isoformat())
    assert task["state"] == "queued"
    assert abs(datetime.fromisoformat(task["start_at"]) - later) < timedelta(seconds=1)
    assert "start_at" not in api.submit(start_at="2020-01-01T00:00:00+00:00")
    refused = api.submit(start_at="2999-01-01T00:00:00Z", status=422)
    assert refused["errors"][0]["field"] == "start_at"


def test_an_estimate_comes_from_the_pools_own_history(api: Api, leader: FakeLeader) -> None:
    """Without a history, the estimate has no figures. With a history, it has `run_s`, `wait_s` and `gpu_seconds`."""
    body = {"pool": "echo", "input": {"steps": 4, "step_s": 0.5}}
    assert api.client.post("/v1/estimate", json=body).json() == {"feasible": True}
    task = api.submit(body["input"])
    claim = leader.claim()
    leader.finish(claim)
    api.until(task["id"], "succeeded")
    assert _estimate_with_history(api, body).keys() == {"feasible", "run_s", "wait_s", "gpu_seconds"}
    bad = api.client.post("/v1/estimate", json={"pool": "echo", "input": {"steps": -1}})
    assert bad.status_code == 422


def test_an_estimate_does_not_count_a_group_that_drains(api: Api, leader: FakeLeader) -> None:
    """A group that is marked to drain takes no task, even while it is idle, so a task waits for the next wake."""
    body = {"pool": "echo", "input": {"steps": 4, "step_s": 0.5}}
    leader.group = replace(leader.group, wake={"model": 310.0})
    api.submit(body["input"])
    leader.finish(leader.claim())
    wait_until(lambda: _estimate_with_history(api, body)["wait_s"] == 0.0, 30, "the group to count")
    leader.queue.register(replace(leader.group, drain=True), ttl_s=60)
    wait_until(lambda: _estimate_with_history(api, body)["wait_s"] == 310.0, 30, "the group not to count")


def _estimate_with_history(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    def known() -> dict[str, Any] | None:
        estimate: dict[str, Any] = api.client.post("/v1/estimate", json=body).json()
        return estimate if "run_s" in estimate else None

    estimate = wait_until(known, 30, "the history to be seen")
    assert estimate is not None
    return estimate


def test_a_replay_is_a_new_task_from_an_ended_one(api: Api, leader: FakeLeader) -> None:
    """A replay copies input, metadata and priority, and names the old task. A repeated key returns the same replay."""
    task = api.submit({"message": "again"}, priority="low", metadata={"a": "b"})
    early = api.client.post(f"/v1/tasks/{task['id']}/replay")
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    leader.fail(leader.claim(), permanent=True)
    key = {"Idempotency-Key": "replay-1"}
    first = api.client.post(f"/v1/tasks/{task['id']}/replay", headers=key)
    again = api.client.post(f"/v1/tasks/{task['id']}/replay", headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    new = first.json()
    assert new["id"] == again.json()["id"] != task["id"]
    assert new["replay_of"] == task["id"]
    assert (new["input"], new["metadata"], new["priority"]) == (task["input"], {"a": "b"}, "low")


def test_tenants_do_not_see_each_other(api: Api) -> None:
    """Another tenant's task is 404 on every path, and is not in the list."""
    task = api.submit(headers={"Daybreak-Tenant": "one"})
    paths = [
        ("GET", ""),
        ("POST", "/cancel"),
        ("POST", "/replay"),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/preview"),
        ("GET", "/artifacts/x"),
        ("HEAD", "/artifacts/x"),
    ]
    for method, path in paths:
        response = api.client.request(
            method, f"/v1/tasks/{task['id']}{path}", headers={"Daybreak-Tenant": "two"}
        )
        assert response.status_code == 404, (method, path)
        if method != "HEAD":
            assert response.json()["code"] == "not_found"
    assert api.client.get("/v1/tasks", headers={"Daybreak-Tenant": "two"}).json()["data"] == []
    assert api.get(task["id"], **{"Daybreak-Tenant": "one"})["state"] == "queued"


def test_a_proxied_client_cannot_name_its_tenant(api: Api) -> None:
    """A client behind a proxy on this machine is not local, so the header is ignored."""
    headers = {"Daybreak-Tenant": "one", "X-Forwarded-For": "203.0.113.9"}
    assert api.submit(headers=headers)["tenant"] == "default"


def test_groups_show_hosts_to_local_clients_only(api: Api, leader: FakeLeader) -> None:
    """Hosts and pids are for administrators. Without API keys, each client on this machine is an administrator."""
    from testkit.waiting import wait_until

    leader.register()

    def group(headers: dict[str, str]) -> dict[str, Any] | None:
        groups = api.client.get("/v1/pools/echo", headers=headers).json()["groups"]
        return groups[0] if groups else None

    local = wait_until(lambda: group({}), 30, "the group to be seen")
    assert local is not None
    assert (local["hosts"], local["pids"], local["state"]) == (["here"], [1], "idle")
    remote = group({"X-Forwarded-For": "203.0.113.9"})
    assert remote is not None
    assert {"hosts", "pids"}.isdisjoint(remote)


def test_a_group_shows_its_own_phase_until_it_is_ready(api: Api, leader: FakeLeader) -> None:
    """The pool's wake phase is that of its furthest group. Each group that is not ready also shows its own phase."""
    from testkit.waiting import wait_until

    def phases() -> dict[str, Any]:
        return {g["id"]: g.get("phase") for g in api.client.get("/v1/pools/echo").json()["groups"]}

    leader.register()
    ready = leader.group
    leader.group = replace(ready, id=new_group_id(), state=GroupState.LOADING, phase="model")
    leader.register()
    expected = {ready.id: None, leader.group.id: "model"}
    wait_until(lambda: phases() == expected, 30, "both groups to be seen")


def test_a_chunked_body_is_read(api: Api) -> None:
    """A body without a Content-Length is read like any other."""

    def pieces() -> Any:
        yield b'{"pool": "echo", '
        yield b'"input": {}}'

    response = httpx2.post(
        f"{api.url}/v1/tasks", content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 202


def test_only_valid_inputs_are_remembered_for_the_redaction_of_the_log(api: Api) -> None:
    """Inputs of refused requests are not remembered, so they cannot displace the inputs of accepted tasks."""

    def remembered(text: str) -> bool:
        return any(text in found for known in private_inputs.known() for found in known.texts)

    api.submit({"message": "a text that is refused", "steps": -1}, status=422)
    api.submit({"message": "a text that is accepted"})
    assert remembered("a text that is accepted")
    assert not remembered("a text that is refused")
