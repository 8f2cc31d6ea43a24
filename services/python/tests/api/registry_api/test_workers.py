"""Routes of workers: registration, heartbeats and the assignments in their answers, deregistration, lists."""

from __future__ import annotations

import pytest

from testkit.waiting import wait_until


def report(alias="small", state="ready", **changes):
    return {"alias": alias, "state": state, "gpus": [0], "capacity": 4, **changes}


def test_a_worker_registers_and_reads_what_to_run_from_the_answers_to_its_heartbeats(gateway):
    assert gateway.add_worker() == {"heartbeat_s": 1.0, "lease_s": 10.0}
    gateway.add_model(args={"max_model_len": 10}, memory_bytes=5)
    assert gateway.beat().json() == {"heartbeat_s": 1.0, "models": []}
    gateway.plan(("small", "w1"), ("small", "w1"), ("small", "w2"), wanted={"small": 3})
    assigned = {
        "alias": "small",
        "source": "org/small",
        "engine": "test",
        "args": {"max_model_len": 10},
        "memory_bytes": 5,
        "gpus": [0],
    }
    assert gateway.beat().json()["models"] == [assigned, assigned]
    gateway.beat(report(), report(requests=2))
    shown = gateway.wait_for("ready")
    assert (shown["ready"], shown["wanted"], shown["workers"]) == (2, 3, ["w1", "w1"])
    gateway.plan()
    assert gateway.beat().json()["models"] == []


def test_a_deleted_model_disappears_from_the_assignments_at_once(gateway):
    gateway.add_worker()
    gateway.add_model()
    gateway.plan(("small", "w1"))
    assert len(gateway.beat().json()["models"]) == 1
    assert gateway.client.delete("/v1/models/small").status_code == 200
    assert gateway.beat(report()).json()["models"] == []
    assert gateway.model()["state"] == "draining"


def test_an_unknown_worker_registers_again(gateway):
    response = gateway.beat()
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "w1" in response.json()["detail"]
    gateway.add_worker()
    assert gateway.beat().status_code == 200


def test_two_workers_of_one_id_are_refused_with_the_place_of_the_first(gateway):
    gateway.add_worker()
    problem = gateway.add_worker(incarnation="b", url="http://127.0.0.1:7001", status=409)
    assert problem["code"] == "conflict"
    assert "http://127.0.0.1:7000" in problem["detail"]
    gateway.add_worker(incarnation="c")  # at the same URL, so the first worker must have ended
    response = gateway.beat()
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert gateway.beat(incarnation="c").status_code == 200


def test_a_worker_that_ends_is_gone_unless_another_has_taken_its_place(gateway):
    gateway.add_worker()
    gateway.add_worker(incarnation="b")
    assert gateway.client.delete("/v1/workers/w1?incarnation=a").status_code == 204
    assert len(gateway.view().workers) == 1
    assert gateway.client.delete("/v1/workers/w1?incarnation=b").status_code == 204
    assert gateway.view().workers == ()
    problem = gateway.client.delete("/v1/workers/w1").json()
    assert (problem["code"], problem["errors"][0]["field"]) == ("invalid_input", "incarnation")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://127.0.0.1", "Write a URL such as"),
        ("http://127.0.0.1/path", "has a path"),
        ("http://169.254.169.254", "workers.allowed_networks"),
    ],
)
def test_the_url_of_a_worker_is_checked(gateway, url, says):
    problem = gateway.add_worker(url=url, status=422)
    assert problem["errors"][0]["field"] == "url"
    assert says in problem["detail"]


def test_a_name_counts_by_its_addresses(start_gateway):
    gateway = start_gateway()
    gateway.add_worker(url="http://localhost:7000")
    assert gateway.view().workers[0].url == "http://localhost:7000"
    gateway = start_gateway(workers={"allowed_networks": "10.0.0.0/8", "token": "secret"})
    assert "10.0.0.0/8" in gateway.add_worker("w2", url="http://localhost:7000", status=422)["detail"]


def test_a_name_without_an_address_is_a_temporary_error(gateway):
    problem = gateway.add_worker(url="http://nowhere.invalid:7000", status=503)
    assert (problem["code"], problem["retry_after_s"]) == ("name_not_resolved", 5.0)
    assert "nowhere.invalid" in problem["detail"]


def test_a_token_allows_workers_anywhere(start_gateway):
    start_gateway(workers={"token": "secret"}).add_worker(url="http://192.0.2.1:7000")


def test_workers_are_listed_with_their_devices_and_models(gateway):
    gateway.add_worker("w2", gpus=[])
    gateway.add_worker()
    gateway.beat(report(requests=3, last_lines=[str(n) * 1000 for n in range(99)], reason="x" * 1000))
    wait_until(lambda: len(gateway.client.get("/v1/workers").json()["workers"]) == 2, 30, "both workers")
    wait_until(lambda: gateway.client.get("/v1/workers/w1").json()["models"], 30, "the heartbeat")
    found = gateway.client.get("/v1/workers").json()
    assert [worker["id"] for worker in found["workers"]] == ["w1", "w2"]
    assert found["manager"] == "test"
    worker = gateway.client.get("/v1/workers/w1").json()
    assert worker == found["workers"][0]
    assert (worker["url"], worker["engines"], worker["draining"]) == (
        "http://127.0.0.1:7000",
        ["test"],
        False,
    )
    assert worker["gpus"] == [{"index": 0, "name": "H100", "memory_bytes": 80, "memory_free_bytes": 79}]
    (model,) = worker["models"]
    assert (model["alias"], model["state"], model["gpus"], model["requests"]) == ("small", "ready", [0], 3)
    assert (len(model["last_lines"]), len(model["last_lines"][-1]), len(model["reason"])) == (30, 300, 500)
    assert model["last_lines"][-1].startswith("98")
    response = gateway.client.get("/v1/workers/w9")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_health_counts_workers_and_the_states_of_models(gateway):
    def wait_for(workers, models):
        expected = {"status": "ok", "manager": "test", "workers": workers, "models": models, "pools": {}}
        wait_until(lambda: gateway.client.get("/health").json() == expected, 30, f"{expected}")

    wait_for(0, {})
    gateway.add_worker()
    for alias in "abc":
        gateway.add_model(alias)
    gateway.beat(report("c"))
    wait_for(1, {"registered": 2, "ready": 1})


@pytest.mark.parametrize("field", ["id", "incarnation", "url", "engines", "gpus", "memory_bytes"])
def test_a_registration_without_a_field_is_refused_with_its_name(gateway, field):
    problem = gateway.add_worker(**{field: None}, status=422)
    assert problem["errors"][0]["field"].split(".")[0] == field
