"""The first request for a model starts a replica. More requests start more replicas and are balanced over them. Idle
replicas stop."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx2

from testkit.waiting import wait_until


def test_the_first_request_starts_a_model_and_waits_for_it(start_models):
    models = start_models()
    worker = models.start_worker("w1")
    shown = models.register("small")
    assert shown["state"] == "registered"
    response = models.ask("small", tokens=2)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "word word "
    assert response.headers["daybreak-model"] == "small"
    assert response.headers["daybreak-worker"] == "w1"
    shown = models.show("small")
    assert (shown["state"], shown["ready"], shown["wanted"], shown["workers"]) == ("ready", 1, 1, ["w1"])
    assert len(worker.events("pid")) == 1


def test_a_model_without_requests_stops_and_the_next_request_starts_it_again(start_models):
    models = start_models()
    worker = models.start_worker("w1")
    models.register("small", idle_s=0.5)
    assert models.ask("small").status_code == 200
    models.wait_for("small", "registered")
    assert models.ask("small").status_code == 200
    assert len(worker.events("pid")) == 2


def test_more_requests_than_one_replica_should_have_start_another(start_models):
    models = start_models()
    models.start_worker("w1")
    models.start_worker("w2")
    models.register("small", replicas=2, target_load=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: models.ask("small", tokens=20, pause=0.1), range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert models.wait_for("small", "ready", ready=2)["workers"] == ["w1", "w2"]
        answers = list(pool.map(lambda _: models.ask("small", tokens=5, pause=0.1), range(8)))
    assert sorted(answer.headers["daybreak-worker"] for answer in answers) == ["w1"] * 4 + ["w2"] * 4


def test_a_stream_sends_each_part_at_once_and_ends_with_the_engines_done(start_models):
    models = start_models()
    worker = models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    body = {"model": "small", "messages": [], "stream": True, "tokens": 3, "pause": 0.2}
    with httpx2.stream("POST", f"{models.api.url}/v1/chat/completions", json=body, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line)
        assert next(lines).startswith("data: {")
        assert worker.events("end") == []  # the first part arrives before the answer ends
        assert list(lines)[-1] == "data: [DONE]"
    wait_until(lambda: worker.events("end"), 60, "the engine's end")


def test_a_client_that_leaves_ends_the_work_at_the_engine(start_models):
    models = start_models()
    worker = models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    body = {"model": "small", "stream": True, "tokens": 1000, "pause": 0.1}
    with httpx2.stream("POST", f"{models.api.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    wait_until(lambda: worker.events("gone"), 30, "the engine to see that the client has gone")


def test_the_requests_of_a_killed_worker_go_to_another(start_models):
    models = start_models()
    first, second = models.start_worker("w1"), models.start_worker("w2")
    models.register("small", replicas=2, min_replicas=2)
    models.wait_for("small", "ready", ready=2)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(models.ask, "small", tokens=10, pause=0.1) for _ in range(6)]
        wait_until(
            lambda: len(first.events("begin")) + len(second.events("begin")) == 6, 30, "all requests to begin"
        )
        first.kill()
        answers = [future.result() for future in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["daybreak-worker"] for answer in answers} == {"w2"}


def test_a_request_that_breaks_each_engine_gets_502_and_the_next_one_an_answer(start_models):
    models = start_models()
    models.start_worker("w1")
    models.start_worker("w2")
    models.register("small", replicas=2, min_replicas=2)
    models.wait_for("small", "ready", ready=2)
    response = models.ask("small", crash="before")
    assert response.status_code == 502  # each engine that gets the request crashes, so the gateway gives up
    assert response.json()["error"]["code"] == "group_failed"
    assert models.ask("small").status_code == 200


def test_a_fallback_answers_until_the_model_is_ready(start_models):
    models = start_models()
    models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    models.register("big", fallback="small", args={"load_s": 1.5})
    response = models.ask("big")
    assert response.status_code == 200
    assert response.headers["daybreak-model"] == "small"
    assert response.json()["model"] == "small"
    models.wait_for("big", "ready")
    response = models.ask("big")
    assert (response.headers["daybreak-model"], response.json()["model"]) == ("big", "big")


def test_a_model_that_no_worker_has_room_for_says_why(start_models):
    models = start_models()
    models.register("big", memory_bytes=10**15)
    response = models.ask("big", headers={"Daybreak-Deadline-S": "1.5"})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (503, "not_ready", "server_error")
    assert int(response.headers["retry-after"]) >= 1
    assert error["wake"]["phase"] == "placing"
    assert "No worker is registered" in error["message"]
    assert re.search(r"\w\. (A replica .*\w\. )?Retry later", error["message"])
    models.start_worker("w1")
    wait_until(lambda: "needs 1000000.0 GB" in models.show("big")["reason"], 30, "the reason to change")
    response = models.ask("big", headers={"Daybreak-Deadline-S": "0.5"})
    assert "needs 1000000.0 GB" in response.json()["error"]["message"]


def test_a_model_whose_engine_keeps_dying_says_why(start_models, tmp_path):
    """The model stays `failed` even while the worker starts the engine again, until the model is ready."""
    broken = tmp_path / "broken"
    broken.touch()
    models = start_models(max_wait_s=0.5)
    models.start_worker("w1")
    models.register("bad", args={"broken": str(broken)}, min_replicas=1)
    wait_until(lambda: "(failure 3 in a row)" in str(models.show("bad")["reason"]), 60, "the third failure")
    response = models.ask("bad")
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (503, "not_ready", "server_error")
    assert (
        "The model is failed: Worker w1 could not start it: The engine test exited with code 3"
        in error["message"]
    )
    assert "in a row): CUDA out of memory, as it were. " in error["message"]
    assert error["wake"]["phase"] == "failed"
    broken.unlink()
    models.wait_for("bad", "ready")


def test_errors_have_the_shape_of_openai(start_models):
    models = start_models()
    client = models.api.client
    unknown = models.ask("unknown")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert unknown.json()["error"]["param"] == "model"
    nameless = client.post("/v1/chat/completions", json={"messages": []})
    assert (nameless.status_code, nameless.json()["error"]["type"]) == (400, "invalid_request_error")
    broken = client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_deleted_model_drains_and_its_name_is_free_again(start_models):
    models = start_models()
    models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(models.ask, "small", tokens=10, pause=0.1)
        wait_until(lambda: models.workers[0].events("begin"), 30, "the request to begin")
        assert models.api.client.delete("/v1/models/small").json()["deleted"] is True
        assert answers.result().status_code == 200
    wait_until(
        lambda: models.api.client.get("/v1/models/small").status_code == 404, 30, "the model to be gone"
    )
    models.register("small")


def test_a_worker_that_stops_in_order_hands_its_models_over(start_models):
    models = start_models()
    first = models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    models.start_worker("w2")
    first.terminate()
    wait_until(lambda: models.show("small")["workers"] == ["w2"], 60, "w2 to have the model")
    assert models.ask("small").headers["daybreak-worker"] == "w2"
    assert first.process.wait(30) == 0
