"""Pools that embed or rerank accept tasks whose input is a file. The file may be an artifact of another task, but not
of another tenant's task."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from api_support import Api, FakeLeader

from daybreak_server.domain.tasks import Finished

PLACES = {"places": {"corpora": "file:///data/corpora", "more": "s3://bucket/more"}}
POOLS = {
    "embed": {"workload": "embed", "bulk": PLACES},
    "rerank": {"workload": "rerank", "bulk": PLACES},
    "placeless": {"workload": "embed"},
    "answers": {"workload": "echo-serve"},
}


@pytest.fixture
def bulk_api(start_api: Callable[..., Api]) -> Api:
    return start_api(pools=POOLS)


def finished(api: Api, leader: FakeLeader, **headers: str) -> tuple[str, str]:
    """A task that has succeeded with the artifact `texts.jsonl`, and the key of the artifact."""
    task = api.submit(headers=headers)["id"]
    claim = leader.claim()
    ref = leader.upload(claim, "texts.jsonl", b'"a"\n', "application/jsonl")
    leader.queue.settle(claim.lease, Finished(artifacts=(ref,)))
    return task, ref.key


def test_a_pool_that_embeds_takes_tasks_over_files(
    bulk_api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """A pool that only answers requests takes no tasks."""
    task = bulk_api.submit(
        {"file": {"place": "corpora", "path": "a.jsonl"}, "input_type": "query"}, pool="embed"
    )
    claim = start_leader("embed").claim()
    assert claim.lease.task == task["id"]
    assert json.loads(claim.input_json)["input_type"] == "query"
    bulk_api.submit({"file": {"place": "corpora", "path": "a.jsonl"}}, pool="rerank")
    refused = bulk_api.submit({"file": {"place": "corpora", "path": "a.jsonl"}}, pool="answers", status=422)
    assert refused["code"] == "invalid_input"


def test_an_artifact_of_ones_own_task_is_found(
    bulk_api: Api, leader: FakeLeader, start_leader: Callable[..., FakeLeader]
) -> None:
    """The group gets the key of the artifact, even if the task is submitted in a batch or replayed."""
    source, key = finished(bulk_api, leader)
    body = {"file": {"task": source, "artifact": "texts.jsonl"}}
    group = start_leader("embed")
    task = bulk_api.submit(body, pool="embed")["id"]
    claim = group.claim()
    assert json.loads(claim.input_json)["file"]["key"] == key
    group.queue.settle(claim.lease, Finished(artifacts=()))
    for path, sent in (
        (f"/v1/tasks/{task}/replay", None),
        ("/v1/tasks:batch", {"tasks": [{"pool": "embed", "input": body}]}),
    ):
        assert bulk_api.client.post(path, json=sent).status_code in (202, 207)
        claim = group.claim()
        assert json.loads(claim.input_json)["file"]["key"] == key
        group.queue.settle(claim.lease, Finished(artifacts=()))


def test_an_artifact_that_the_caller_may_not_read_is_refused(bulk_api: Api, leader: FakeLeader) -> None:
    """Another tenant's task causes the same error as an unknown task. No client may send an artifact's key."""
    foreign, key = finished(bulk_api, leader, **{"Daybreak-Tenant": "heavy"})
    own, _ = finished(bulk_api, leader)
    waiting = bulk_api.submit()["id"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"task": foreign, "artifact": "texts.jsonl"}, "input.file.task"),
        ({"task": "embed_01", "artifact": "texts.jsonl"}, "input.file.task"),
        ({"task": waiting, "artifact": "texts.jsonl"}, "input.file.task"),
        ({"task": own, "artifact": "other.jsonl"}, "input.file.artifact"),
        ({"task": foreign, "artifact": "texts.jsonl", "key": key}, "input.file.key"),
    ]
    for file, field in cases:
        problem = bulk_api.submit({"file": file}, pool="embed", status=422)
        assert [error["field"] for error in problem["errors"]] == [field], problem


def test_the_artifact_of_a_task_that_has_not_succeeded_is_refused_with_what_to_do(bulk_api: Api) -> None:
    task = bulk_api.submit()["id"]

    def refusal() -> str:
        file = {"task": task, "artifact": "texts.jsonl"}
        (error,) = bulk_api.submit({"file": file}, pool="embed", status=422)["errors"]
        return str(error["message"])

    assert refusal() == "The task is queued, so it has no artifacts. Wait until it has succeeded."
    assert bulk_api.client.post(f"/v1/tasks/{task}/cancel").status_code < 300
    assert refusal() == "The task is cancelled, so it has no artifacts. Send another task's id."


def test_an_unknown_place_is_refused_with_those_that_there_are(
    bulk_api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """Submit and estimate refuse an unknown place at once, so the client sees the error."""
    unknown = {"file": {"place": "corpus", "path": "a.jsonl"}}
    for pool, advice in (
        ("embed", "Use one of: corpora, more."),
        ("placeless", "name an artifact of a task"),
    ):
        for path in ("/v1/tasks", "/v1/estimate"):
            answer = bulk_api.client.post(path, json={"pool": pool, "input": unknown})
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["field"] == "input.file.place"
            assert advice in error["message"]


def test_an_error_in_the_file_names_the_field_that_the_client_has_sent(bulk_api: Api) -> None:
    """`file` has two forms. The error names only fields of the form that the client has used, and no Python class."""
    cases: list[tuple[Any, list[str]]] = [
        ({"place": "corpora"}, ["input.file.path"]),
        ({"path": "a.jsonl"}, ["input.file.place"]),
        ({"place": "corpora", "path": ""}, ["input.file.path"]),
        ({"place": "corpora", "path": "a.jsonl", "line": 1}, ["input.file.line"]),
        ({"task": "embed_01"}, ["input.file.artifact"]),
        ({"artifact": "texts.jsonl"}, ["input.file.task"]),
        ({"task": 5, "artifact": "texts.jsonl"}, ["input.file.task"]),
        ({}, ["input.file.place", "input.file.path"]),
        ("a.jsonl", ["input.file"]),
        ([], ["input.file"]),
    ]
    for file, fields in cases:
        problem = bulk_api.submit({"file": file}, pool="embed", status=422)
        assert [error["field"] for error in problem["errors"]] == fields, (file, problem)


def test_the_example_of_the_documentation_is_a_task_that_the_pool_takes(bulk_api: Api) -> None:
    submit = bulk_api.client.get("/openapi.json").json()["paths"]["/v1/tasks"]["post"]
    examples = submit["requestBody"]["content"]["application/json"]["examples"]
    for pool in ("embed", "rerank"):
        assert bulk_api.client.post("/v1/tasks", json=examples[pool]["value"]).status_code == 202, examples


def _constant(shown: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a queued task, without its wait for a group, which changes with time."""
    return {name: value for name, value in shown.items() if name not in {"queue", "wake"}}


@pytest.mark.parametrize("batch", [False, True])
def test_a_repeated_submit_returns_the_first_task_also_if_its_file_is_gone(
    bulk_api: Api, leader: FakeLeader, batch: bool
) -> None:
    """The client repeats a submit whose answer it has not seen. The artifact may have been deleted since."""

    def submit(input: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        body: dict[str, Any] = {"pool": "embed", "input": input}
        path, sent = ("/v1/tasks:batch", {"tasks": [body]}) if batch else ("/v1/tasks", body)
        answer = bulk_api.client.post(path, json=sent, headers={"Idempotency-Key": key})
        if not batch:
            return answer.status_code, _constant(answer.json())
        (item,) = answer.json()["results"]
        return item["status"], _constant(item.get("task") or item["error"])

    source, _ = finished(bulk_api, leader)
    body = {"file": {"task": source, "artifact": "texts.jsonl"}}
    status, first = submit(body, "a")
    assert status == 202
    assert submit(body, "a") == (200, first)
    assert bulk_api.client.delete(f"/v1/tasks/{source}").status_code == 204
    assert submit(body, "a") == (200, first)
    status, problem = submit({**body, "on_error": "fail"}, "a")
    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    status, problem = submit(body, "b")
    assert (status, problem["errors"][0]["field"]) == (422, "input.file.task")
