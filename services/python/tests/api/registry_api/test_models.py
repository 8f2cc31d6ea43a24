"""Routes of models: register, list, show, delete."""

from __future__ import annotations

import json
import time

import pytest

from daybreak_server.ports.registry import ModelWake


def ready(alias="small"):
    return {"alias": alias, "state": "ready", "capacity": 4}


def test_a_registered_model_is_shown_with_its_defaults(gateway):
    before = int(time.time())
    shown = gateway.add_model("org/small:v1", source="Qwen/Qwen3", memory_bytes=5)
    assert before <= shown.pop("created") <= time.time() + 1
    assert shown == {
        "id": "org/small:v1",
        "object": "model",
        "owned_by": "daybreak",
        "state": "registered",
        "reason": "The first request starts it.",
        "source": "Qwen/Qwen3",
        "engine": "test",
        "args": {},
        "memory_bytes": 5,
        "gpus": 1,
        "replicas": 1,
        "min_replicas": 0,
        "target_load": 8.0,
        "idle_s": 300.0,
        "wanted": 0,
        "ready": 0,
        "workers": [],
    }
    for alias in ("org/small:v1", "org%2Fsmall%3Av1"):
        response = gateway.client.get(f"/v1/models/{alias}")
        assert {**response.json(), "created": None} == {**shown, "created": None}
        assert gateway.client.head(f"/v1/models/{alias}").status_code == 200


def test_common_options_may_stand_beside_args(gateway):
    body = {"alias": "big", "model_name": "org/big", "args": {"seed": 1}, "max_model_len": 4096}
    response = gateway.client.post(
        "/v1/models/register", json={**body, "tensor_parallel_size": 2, "idle_s": 5}
    )
    assert response.status_code == 201, response.text
    assert response.headers["location"] == "/v1/models/big"
    shown = response.json()
    assert shown["args"] == {"seed": 1, "max_model_len": 4096, "tensor_parallel_size": 2}
    assert (shown["source"], shown["engine"], shown["gpus"], shown["idle_s"]) == ("org/big", "vllm", 2, 5.0)


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"enforce_eager": True}, "enforce_eager", '{"args": {"enforce_eager": …}}'),
        ({"model_name": "x"}, "model_name", "another name of source"),
        ({"source": None}, "source", ""),
        ({"alias": "two words"}, "alias", ""),
        ({"replicas": 0}, "replicas", ""),
        ({"min_replicas": 2}, "body", "raise replicas"),
        ({"fallback": "small"}, "body", "is the model itself"),
        ({"fallback": "echo"}, "fallback", "names the pool echo"),
        ({"args": {"dtype": "auto"}, "dtype": "auto"}, "body", "given twice"),
        ({"args": []}, "args", ""),
    ],
)
def test_wrong_fields_are_named(gateway, fields, field, says):
    problem = gateway.add_model(**fields, status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("invalid_input", field)
    assert says in problem["detail"]


def test_a_large_registration_is_refused(gateway):
    problem = gateway.add_model(args={"x": "y" * 70_000}, status=413)
    assert problem["limit"] == "body_bytes"


def test_a_name_is_taken_by_models_pools_and_models_that_drain(gateway):
    gateway.add_model()
    gateway.add_worker()
    assert "DELETE /v1/models/small" in gateway.add_model(status=409)["detail"]
    assert "pool echo" in gateway.add_model("echo", status=409)["detail"]
    gateway.beat(ready())
    gateway.client.delete("/v1/models/small")
    problem = gateway.add_model(status=409)
    assert problem["code"] == "conflict"
    assert "has been deleted" in problem["detail"]


def test_a_fallback_may_come_later_but_has_none_itself(gateway):
    gateway.add_model("big", fallback="small")
    gateway.add_model("tiny")
    assert "fallback of big" in gateway.add_model("small", fallback="tiny", status=422)["detail"]
    gateway.add_model("small")
    assert "has itself the fallback small" in gateway.add_model("huge", fallback="big", status=422)["detail"]
    assert gateway.add_model("other", fallback="small")["fallback"] == "small"


def test_pools_that_answer_requests_are_listed_after_the_models(start_gateway):
    gateway = start_gateway(pools={"zoo": {"workload": "echo-serve"}, "echo": {"workload": "echo"}})
    gateway.add_model("b")
    gateway.add_model("a")
    found = gateway.client.get("/v1/models").json()
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == ["a", "b", "zoo"]
    pool = {
        "id": "zoo",
        "object": "model",
        "created": 0,
        "owned_by": "daybreak",
        "pool": "zoo",
        "kind": "online",
    }
    assert found["data"][-1] == pool == gateway.model("zoo")
    assert gateway.client.get("/v1/models/echo").status_code == 404


def test_pools_of_sessions_are_listed_with_what_their_clients_need(start_gateway, tmp_path):
    """The list shows the language pairs of each pool, and a notice if its model is the tiny one or is simulated."""
    folder = tmp_path / "interpreter"
    folder.mkdir()
    vocabulary = {"source": "en", "targets": ["fr"], "names": {"en": "English", "fr": "French"}}
    (folder / "config.json").write_text(json.dumps({"vocabulary": vocabulary}))
    pools = {
        "tiny": {"workload": "speech"},
        "large": {"workload": "speech", "model": str(folder)},
        "fake": {"workload": "simulated-speech"},
    }
    gateway = start_gateway(pools=pools)
    listed = {model["id"]: model for model in gateway.client.get("/v1/models").json()["data"]}
    assert {name: model["kind"] for name, model in listed.items()} == dict.fromkeys(pools, "sessions")
    assert [pair["target_name"] for pair in listed["tiny"]["pairs"]] == ["German", "Chinese", "English"]
    french = {"source": "en", "target": "fr", "source_name": "English", "target_name": "French"}
    assert listed["large"]["pairs"] == [french]
    assert "some fifty English words" in listed["tiny"]["notice"]
    assert "mean nothing" in listed["fake"]["notice"]
    assert "notice" not in listed["large"]
    assert gateway.model("tiny") == listed["tiny"]


def test_an_unknown_model_is_404_in_the_shape_that_the_request_expects(gateway):
    response = gateway.client.get("/v1/models/org/none")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
    error = response.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "org/none" in error["message"]
    response = gateway.client.delete("/v1/models/org/none")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_deleted_model_drains_until_no_replica_is_left(start_gateway):
    gateway = start_gateway(workers={"lease_s": 30})
    gateway.add_worker()
    gateway.add_model()
    gateway.plan(("small", "w1"))
    gateway.beat(ready())
    gateway.wait_for("ready")
    response = gateway.client.delete("/v1/models/small")
    assert response.json() == {"id": "small", "object": "model", "deleted": True}
    assert gateway.model()["state"] == "draining"
    assert gateway.client.delete("/v1/models/small").status_code == 200


def test_a_model_that_starts_says_how_far_it_is(gateway):
    gateway.add_model()
    now_ms = gateway.view().now_ms
    gateway.plan(
        wanted={"small": 1},
        unplaced={"small": "No worker is registered."},
        wakes={"small": ModelWake(since_ms=now_ms - 5000, last_s=3600)},
    )
    shown = gateway.wait_for("placing")
    assert shown["reason"] == "No worker is registered."
    assert shown["wanted"] == 1
    wake = shown["wake"]
    assert (wake["phase"], wake["message"]) == ("placing", "No worker is registered.")
    assert 3000 < wake["eta_s"] <= 3595
    assert wake["since"].endswith("Z")
    gateway.add_worker()
    gateway.plan(
        ("small", "w1"), wanted={"small": 1}, wakes={"small": ModelWake(since_ms=now_ms - 5000, last_s=0.1)}
    )
    wake = gateway.wait_for("starting")["wake"]
    assert (wake["phase"], wake["eta_s"]) == ("starting", 0.0)
    gateway.beat(ready())
    assert "wake" not in gateway.wait_for("ready")
