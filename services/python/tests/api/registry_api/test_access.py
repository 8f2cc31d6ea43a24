"""Who may change workers and models, and what others see of them."""

from __future__ import annotations

import pytest
from registry_support import REMOTE, bearer, heartbeat, registration

from testkit.waiting import wait_until

CHANGES = [
    ("POST", "/v1/workers", registration()),
    ("PUT", "/v1/workers/w1", heartbeat()),
    ("DELETE", "/v1/workers/w1?incarnation=a", None),
    ("POST", "/v1/models/register", {"alias": "other", "source": "x"}),
    ("DELETE", "/v1/models/small", None),
]
TOKENS = {"workers": {"token": "wörkers-secret"}, "admin": {"token": "admin-secret"}}


def code(response):
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_changes_from_elsewhere_need_a_token(start_gateway, method, path, body):
    gateway = start_gateway(**TOKENS)

    def send(headers):
        return gateway.client.request(method, path, json=body, headers=headers)

    response = send(REMOTE)
    assert code(response) == (401, "no_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert code(send({**REMOTE, "Authorization": "Basic d29ya2Vycw=="})) == (401, "no_key")
    assert code(send(bearer("wrong"))) == (403, "forbidden")
    assert gateway.view().models == {}
    assert gateway.view().workers == ()


@pytest.mark.parametrize("token", ["wörkers-secret", "admin-secret"])
def test_either_token_allows_every_change(start_gateway, token):
    """A worker's registration is the exception: only ``workers.token`` allows it."""
    gateway = start_gateway(**TOKENS)
    headers = bearer(token)
    gateway.add_worker(headers=bearer("wörkers-secret"))
    gateway.add_model(headers=headers)
    for method, path, body in [*CHANGES[1:3], CHANGES[4]]:
        response = gateway.client.request(method, path, json=body, headers=headers)
        assert response.status_code in (200, 204), response.text


def test_a_server_without_tokens_is_changed_from_its_own_machine_only(gateway):
    for method, path, body in CHANGES:
        for headers in (REMOTE, bearer("None")):
            response = gateway.client.request(method, path, json=body, headers=headers)
            assert code(response) == (401, "no_key")
            assert "workers.token" in response.json()["detail"]
    gateway.add_worker()
    gateway.add_model()


@pytest.mark.parametrize("tokens", [TOKENS, {}])
def test_a_worker_on_the_machine_of_the_gateway_is_refused_with_a_token_of_another_one(start_gateway, tokens):
    """If the gateway accepted the worker, the worker would answer every request of the gateway with 401, because the
    gateway does not send the token that the worker expects."""
    gateway = start_gateway(**tokens)
    wrong = {"Authorization": "Bearer other"}
    response = gateway.client.post("/v1/workers", json=registration(), headers=wrong)
    assert code(response) == ((403, "forbidden") if tokens else (401, "no_key"))
    assert "workers.token" in response.json()["detail"]
    assert gateway.view().workers == ()
    gateway.add_model(headers=wrong)  # OpenAI's client libraries always send a key


@pytest.mark.parametrize("tokens", [TOKENS, {"admin": TOKENS["admin"]}])
@pytest.mark.parametrize("address", [REMOTE, {}])
def test_a_worker_with_the_token_of_administrators_is_refused(start_gateway, tokens, address):
    """Gateways do not send ``admin.token`` to workers, so the worker would answer all their requests with 401."""
    gateway = start_gateway(**tokens)
    headers = {**bearer("admin-secret"), **address}
    response = gateway.client.post("/v1/workers", json=registration(), headers=headers)
    assert code(response) == (403, "forbidden")
    assert "DAYBREAK_WORKERS__TOKEN" in response.json()["detail"]
    assert gateway.view().workers == ()


def test_everyone_sees_the_models_but_only_administrators_their_sources_and_where_workers_are(start_gateway):
    gateway = start_gateway(**TOKENS)
    gateway.add_worker()
    gateway.add_model(args={"max_model_len": 10})
    failed = {"alias": "small", "state": "failed", "reason": "exit 3", "last_lines": ["a key"], "capacity": 1}
    assert gateway.beat(failed).status_code == 200
    gateway.wait_for("failed")
    wait_until(lambda: gateway.client.get("/v1/workers").json()["workers"][0]["models"], 30, "the report")
    paths = ["/v1/models", "/v1/models/small", "/v1/workers", "/workers", "/v1/workers/w1"]
    public = {path: gateway.client.get(path, headers=bearer("any-key")).text for path in paths}
    for text in public.values():
        assert not any(secret in text for secret in ("org/small", "max_model_len", "127.0.0.1", "a key"))
    assert gateway.client.get("/v1/models", headers=REMOTE).json()["data"][0]["state"] == "failed"
    for headers in ({}, bearer("admin-secret")):
        seen = {path: gateway.client.get(path, headers=headers).text for path in paths}
        assert "org/small" in seen["/v1/models"]
        assert "max_model_len" in seen["/v1/models/small"]
        assert "http://127.0.0.1:7000" in seen["/v1/workers/w1"]
        assert "a key" in seen["/v1/workers"] == seen["/workers"]


def test_the_token_of_administrators_shows_what_only_they_see_of_pools_too(start_gateway, start_leader):
    gateway = start_gateway(**TOKENS)
    start_leader().register()

    def pids(headers):
        groups = gateway.client.get("/v1/pools/echo", headers=headers).json()["groups"]
        return groups[0].get("pids") if groups else []

    wait_until(lambda: pids({}), 30, "the group")
    assert pids(bearer("admin-secret")) == [1]
    assert pids(bearer("wörkers-secret")) is None
    assert pids(REMOTE) is None
