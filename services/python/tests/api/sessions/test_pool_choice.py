"""Which pool serves a session: the one that the client names, or the one whose model has the language pair."""

from __future__ import annotations

import pytest

SPEC = {"workload": "testkit.session_workload:SPEC"}
FRENCH = {"workload": "testkit.session_workload:FRENCH"}
WITHOUT_PAIRS = {"workload": "testkit.session_workload:WITHOUT_PAIRS"}


@pytest.mark.parametrize("default", [None, "speech"], ids=["no default pool", "another default pool"])
def test_a_pair_selects_the_only_pool_that_has_it(start_speech, default):
    http = {"default_pools": {"sessions": default}} if default else {}
    speech = start_speech(pools={"speech": SPEC, "parrot": FRENCH}, http=http)
    post = speech.api.client.post
    assert speech.open(target="fr")["pool"] == "parrot"
    assert speech.open(target="de")["pool"] == "speech"
    assert (
        post("/init", json={"language_pair": "English -> French"}).json()["session_id"].startswith("parrot_")
    )
    loaded = post("/load_model", json={"gpu_id": 0, "language_pair": "en-fr"}).json()
    assert loaded["pool"] == "parrot"
    user = post("/translate", json={"user_id": "ana", "language_pair": "en-fr"}).json()
    assert user["session_id"].startswith("parrot_")
    found = speech.api.client.get("/session/ana/English%20-%3E%20French").json()
    assert found["session_id"] == user["session_id"]


def test_a_named_pool_is_not_left_for_another(start_speech):
    speech = start_speech(pools={"speech": SPEC, "parrot": FRENCH})
    problem = speech.open(pool="speech", target="fr", status=422)
    assert "has no pair en -> fr" in str(problem)


def test_a_pair_that_no_pool_has_is_refused_with_those_of_the_default_pool(start_speech):
    pools = {"parrot": FRENCH, "speech": SPEC}
    speech = start_speech(pools=pools, http={"default_pools": {"sessions": "speech"}})
    assert "English -> German" in str(speech.open(target="it", status=422))


def test_a_pair_of_several_pools_needs_a_name_or_a_default_pool(start_speech):
    pools = {"one": SPEC, "two": SPEC, "parrot": FRENCH}
    assert "one, two. Name one." in start_speech(pools=pools).open(target="de", status=404)["detail"]
    speech = start_speech(pools=pools, http={"default_pools": {"sessions": "parrot"}})
    assert "one, two. Name one." in speech.open(target="de", status=404)["detail"]
    assert (
        start_speech(pools=pools, http={"default_pools": {"sessions": "two"}}).open(target="de")["pool"]
        == "two"
    )


def test_a_default_pool_that_does_not_exist_is_named_with_its_setting(start_speech):
    speech = start_speech(pools={"one": SPEC, "two": SPEC}, http={"default_pools": {"sessions": "three"}})
    message = speech.open(target="de", status=404)["detail"]
    assert message.startswith("The setting http.default_pools.sessions names 'three', but")
    assert speech.open(target="de", pool="one")["pool"] == "one"


def test_infinissts_clients_name_one_of_several_pools_too(start_speech):
    """The error tells clients to name a pool, so InfiniSST's clients must be able to name one."""
    client = start_speech(pools={"one": SPEC, "two": SPEC}).client
    pair, two = {"language_pair": "English -> German"}, {"pool": "two"}
    sent = {**pair, "user_id": "u", "audio_data": [0.0]}
    for path, body in (("/init", pair), ("/load_model", {**pair, "gpu_id": 0}), ("/translate", sent)):
        assert "Name one." in client.post(path, json=body).json()["detail"], path
        answer = client.post(path, json=body | two)
        assert (answer.status_code, "two" in answer.text) == (200, True), answer.text
    for path in ("/stats", "/ray/stats", "/session/u/en-de"):
        assert "Name one." in client.get(path).json()["detail"], path
        answer = client.get(path, params=two)
        assert (answer.status_code, "two" in answer.text) == (200, True), answer.text
    assert client.post("/session/u/en-de/reset", params=two).json()["success"]
    assert client.get("/session/u/en-de", params=two).status_code == 404


def test_a_workload_that_lists_no_pairs_leaves_known_languages_to_its_groups(start_speech):
    speech = start_speech(pools={"any": WITHOUT_PAIRS})
    opened = speech.open(source="French", target="ja")
    assert (opened["source"], opened["target"]) == ("fr", "ja")
    assert "'Klingon' is no known language" in speech.open(target="Klingon", status=422)["detail"]


def test_tasks_and_requests_to_a_pool_of_sessions_are_refused_with_the_route_of_sessions(start_speech):
    speech = start_speech(pools={"speech": SPEC})
    task = speech.api.client.post("/v1/tasks", json={"pool": "speech", "input": {}})
    assert (task.status_code, task.json()["errors"][0]["message"]) == (
        422,
        "The pool 'speech' has the kind sessions, so it takes no tasks. Open sessions in it with POST /v1/sessions.",
    )
    request = speech.api.client.post("/v1/pools/speech/serve/", json={})
    assert (request.status_code, request.json()["code"]) == (409, "conflict")
    assert request.json()["detail"].endswith(
        "answers no requests. Open sessions in it with POST /v1/sessions."
    )
