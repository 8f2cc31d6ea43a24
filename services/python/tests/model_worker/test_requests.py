"""Requests that a worker passes to its engines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from testkit.waiting import wait_until
from testkit.workers import WorkerGateway, WorkerProcess, model

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway() -> Iterator[WorkerGateway]:
    gateway = WorkerGateway()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def worker(gateway: WorkerGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    gateway.want(
        "w1", model("m"), model("n"), model("slow", args={"load_s": 600}), model("two"), model("two")
    )
    worker = WorkerProcess(tmp_path_factory.mktemp("worker"), gateway.url, engine={"capacity": 2})
    for alias in ("m", "n"):
        gateway.wait_for("w1", alias, "ready")
    wait_until(lambda: states(gateway, "two") == ["ready", "ready"], 60, "two replicas")
    yield worker
    worker.close()


def states(gateway: WorkerGateway, alias: str) -> list[str]:
    return [found.state for found in gateway.last("w1").models if found.alias == alias]


def test_the_model_is_named_by_the_header_or_by_the_body(worker: WorkerProcess) -> None:
    with worker.client() as client:
        by_header = client.post(PATH, json={"model": "n"}, headers={"Daybreak-Model": "m"})
        by_body = client.post(PATH, json={"model": "n"})
        neither = client.post(PATH, json={})
        no_json = client.post(PATH, content=b"x" * 10)
    assert by_header.json()["model"] == "m"
    assert by_body.json()["model"] == "n"
    assert neither.status_code == no_json.status_code == 400
    assert neither.json()["error"]["code"] == "no_model"


def test_path_query_and_headers_reach_the_engine(worker: WorkerProcess) -> None:
    headers = {
        "Daybreak-Model": "m",
        "Daybreak-Deadline-S": "30",
        "Daybreak-Worker": "w1",
        "X-Request-Id": "r-1",
        "Authorization": "Bearer of-the-engine",
    }
    with worker.client() as client:
        seen = client.post("/v1/a%20b/c?x=%2F", content=b"12345", headers=headers).json()["seen"]
    assert (seen["path"], seen["query"], seen["size"]) == ("/v1/a b/c", "x=%2F", 5)
    assert seen["headers"]["x-request-id"] == "r-1"
    assert seen["headers"]["authorization"] == "Bearer of-the-engine"
    assert not [name for name in seen["headers"] if name.startswith("daybreak-")]


def test_a_large_body_is_passed_on_as_it_comes(worker: WorkerProcess) -> None:
    body = (b"x" * 65536 for _ in range(64))
    with worker.client() as client:
        answer = client.post(PATH, content=body, headers={"Daybreak-Model": "m"})
    assert answer.json()["seen"]["size"] == 4 << 20


def test_a_stream_arrives_while_the_engine_still_works(worker: WorkerProcess) -> None:
    body = {"model": "m", "stream": True, "tokens": 2, "pause": 0.5}
    with (
        worker.client() as client,
        client.stream("POST", PATH, json=body, headers={"X-Request-Id": "s-1"}) as answer,
    ):
        lines = answer.iter_lines()
        first = next(lines)
        assert worker.events("end").count("s-1") == 0
        assert first.startswith("data: {")
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_client_that_leaves_ends_the_work_at_the_engine(worker: WorkerProcess) -> None:
    body = {"model": "m", "stream": True, "tokens": 1000, "pause": 0.05}
    with (
        worker.client() as client,
        client.stream("POST", PATH, json=body, headers={"X-Request-Id": "g-1"}) as answer,
    ):
        next(answer.iter_lines())
    wait_until(lambda: "g-1" in worker.events("gone"), 30, "the engine to see that nobody waits")
    with pytest.raises(httpx2.ReadTimeout), worker.client() as client:
        client.post(PATH, json={"model": "m", "pause": 60}, timeout=0.5, headers={"X-Request-Id": "g-2"})
    wait_until(
        lambda: "g-2" in worker.events("gone"), 30, "the engine to see that nobody waits for its first byte"
    )


def test_a_slow_client_slows_its_engine_down(worker: WorkerProcess) -> None:
    # There are two connections: from the engine to the worker, and from the worker to the client.
    size_of_token, in_buffers = 500_000, 2 * kernel_buffers()
    tokens = in_buffers // size_of_token + 40
    body = {"model": "m", "stream": True, "tokens": tokens, "size": size_of_token}
    with (
        worker.client() as client,
        client.stream("POST", PATH, json=body, headers={"X-Request-Id": "b-1"}) as answer,
    ):
        parts = answer.iter_raw()
        size = len(next(parts))
        sent = written(worker, "b-1")
        assert sent < tokens, f"all {tokens} tokens were sent to a client that read one part"
        for part in parts:
            size += len(part)
    assert size > tokens * size_of_token
    memory = psutil.Process(worker.process.pid).memory_info().rss
    assert memory < 400 << 20


def kernel_buffers() -> int:
    """The maximum number of bytes in the buffers of a connection: the sender's and the receiver's together."""
    limits = [Path("/proc/sys/net/ipv4", name).read_text().split() for name in ("tcp_wmem", "tcp_rmem")]
    return sum(int(most) for _least, _default, most in limits)


def written(worker: WorkerProcess, request: str) -> int:
    """Wait until the engine writes no more tokens. :returns: how many it has written."""
    counts = [-1]

    def settled() -> bool:
        counts.append(worker.events("token").count(request))
        return len(counts) > 5 and counts[-5:] == [counts[-1]] * 5

    wait_until(settled, 60, "the engine to stop writing", pause_s=0.1)
    return counts[-1]


def test_an_unknown_model_gets_404(worker: WorkerProcess) -> None:
    answer = worker.ask("none")
    assert answer.status_code == 404
    assert answer.headers["daybreak-refused"] == "unknown"
    assert answer.json() == {
        "error": {
            "message": "This worker does not run the model none.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_a_model_that_starts_refuses_before_the_body_is_sent(worker: WorkerProcess) -> None:
    assert (worker.ask("slow").status_code, worker.ask("slow").headers["daybreak-refused"]) == (
        503,
        "starting",
    )


def test_a_request_for_another_worker_is_refused(worker: WorkerProcess) -> None:
    with worker.client() as client:
        answer = client.post(PATH, json={"model": "m"}, headers={"Daybreak-Worker": "w2"})
    assert (answer.status_code, answer.headers["daybreak-refused"]) == (503, "other")


def test_a_full_model_refuses_and_reports_its_load(worker: WorkerProcess, gateway: WorkerGateway) -> None:
    with worker.client() as client, ThreadPoolExecutor() as threads:
        body = {"model": "n", "tokens": 1, "pause": 600}
        headers = [{"X-Request-Id": f"f-{number}"} for number in (1, 2)]
        for each in headers:
            threads.submit(_give_up, client, body, each)
        wait_until(lambda: {"f-1", "f-2"} <= set(worker.events("begin")), 30, "two requests")
        full = worker.ask("n")
        assert (full.status_code, full.headers["daybreak-refused"]) == (503, "busy")
        wait_until(lambda: load(gateway, "n") == (2, 2), 30, "the load in a heartbeat")
    wait_until(lambda: load(gateway, "n") == (0, 2), 30, "a load of zero in a heartbeat")
    assert worker.ask("n").status_code == 200


def _give_up(client: httpx2.Client, body: object, headers: dict[str, str]) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        client.post(PATH, json=body, headers=headers, timeout=5)


def load(gateway: WorkerGateway, alias: str) -> tuple[int, int]:
    found = next(found for found in gateway.last("w1").models if found.alias == alias)
    return found.requests, found.capacity


def test_two_replicas_share_the_requests(worker: WorkerProcess) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: worker.ask("two", pause=0.5).json()["seen"]["pid"], range(4)))
    assert len(set(answers)) == 2
    assert all(answers.count(pid) == 2 for pid in answers)


def test_the_deadline_ends_a_request(worker: WorkerProcess) -> None:
    headers = {"Daybreak-Deadline-S": "0.3", "X-Request-Id": "d-1"}
    with worker.client() as client:
        late = client.post(PATH, json={"model": "m", "pause": 60}, headers=headers)
        wait_until(lambda: "d-1" in worker.events("gone"), 30, "the engine to see that nobody waits")
        past = client.post(PATH, json={"model": "m"}, headers={"Daybreak-Deadline-S": "0"})
        wrong = client.post(PATH, json={"model": "m"}, headers={"Daybreak-Deadline-S": "soon"})
        body = {"model": "m", "stream": True, "tokens": 1000, "pause": 0.05}
        with (
            client.stream("POST", PATH, json=body, headers={"Daybreak-Deadline-S": "1"}) as answer,
            pytest.raises(httpx2.RemoteProtocolError),
        ):
            answer.read()
    assert (late.status_code, past.status_code, wrong.status_code) == (504, 504, 400)
    assert late.json()["error"]["code"] == "deadline_passed"


def test_an_idle_connection_that_the_engine_has_closed_costs_no_request(worker: WorkerProcess) -> None:
    for pause_s in (0, 3.2, 5.2):  # the worker keeps idle connections for 3 s, the engine for 5 s
        time.sleep(pause_s)
        assert worker.ask("m").status_code == 200


def test_the_models_that_are_ready_are_listed(worker: WorkerProcess) -> None:
    with worker.client() as client:
        listed = client.get("/v1/models").json()
        health = client.get("/health").json()
    assert [entry["id"] for entry in listed["data"]] == ["m", "n", "two"]
    assert (health["status"], health["id"], health["registered"]) == ("ok", "w1", True)
    assert {entry["alias"]: entry["state"] for entry in health["models"]}["slow"] == "starting"
    assert "last_lines" not in json.dumps(health)


def test_the_death_of_an_engine_is_a_502_or_cuts_off_an_answer_that_has_begun(
    worker: WorkerProcess, gateway: WorkerGateway
) -> None:
    before = worker.ask("m", crash="before")
    assert (before.status_code, before.headers["daybreak-broke"]) == (502, "engine")
    assert before.json()["error"]["code"] == "engine_failed"
    wait_until(lambda: worker.ask("m").status_code == 200, 60, "the engine to start again")
    with worker.client() as client:
        body = {"model": "m", "stream": True, "tokens": 5, "crash": "within"}
        with client.stream("POST", PATH, json=body) as answer, pytest.raises(httpx2.RemoteProtocolError):
            answer.read()
    wait_until(
        lambda: worker.ask("m").headers.get("daybreak-refused") == "failed", 30, "the failure to be known"
    )
    wait_until(lambda: worker.ask("m").status_code == 200, 60, "the engine to start again")


def test_a_worker_with_a_token_answers_only_those_who_know_it(tmp_path: Path) -> None:
    gateway = WorkerGateway(token="s3cret")
    gateway.want("w1", model("m"))
    worker = WorkerProcess(tmp_path / "worker", gateway.url, token="s3cret")
    try:
        gateway.wait_for("w1", "m", "ready")
        with worker.client() as client:
            body = {"model": "m"}
            assert client.post(PATH, json=body).status_code == 401
            assert client.post(PATH, json=body, headers={"Authorization": "Bearer other"}).status_code == 401
            assert client.get("/v1/models").status_code == 401
            assert client.get("/health").status_code == 200
            known = client.post(PATH, json=body, headers={"Authorization": "Bearer s3cret"}).json()
        assert "authorization" not in known["seen"]["headers"]
    finally:
        worker.close()
        gateway.stop()
