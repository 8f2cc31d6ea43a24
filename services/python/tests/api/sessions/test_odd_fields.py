"""No odd value of a field, in the body or in the query, makes a route of sessions respond with a 500."""

from __future__ import annotations

from typing import Any

import pytest

PAIR = {"language_pair": "English -> German"}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/sessions": {
        "target": "de",
        "source": "en",
        "pool": "speech",
        "client": "c",
        "latency_multiplier": 1,
        "options": {},
    },
    "/init": {
        **PAIR,
        "agent_type": "InfiniSST",
        "client_id": "c",
        "latency_multiplier": 2,
        "evaluation_mode": False,
        "pool": "speech",
    },
    "/ping": {"session_id": "speech_01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    "/delete_session": {"session_id": "speech_01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    "/reset_translation": {"session_id": "speech_01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    "/load_model": {**PAIR, "gpu_id": 0},
    "/translate": {**PAIR, "user_id": "u", "audio_data": [0.0], "is_final": False, "max_new_tokens": 5},
    "/ray/configure": {
        "pool": "speech",
        "strategy": "iteration",
        "max_batch_size": 8,
        "batch_timeout_ms": 10,
        "enable_dynamic_batching": True,
        "max_decode_delay_ms": 10,
        "gather_size": 4,
        "gather_wait_ms": 10,
        "max_batch_tokens": 64,
        "load_balance_strategy": "least_loaded",
    },
}
VALUES: list[Any] = [
    None,
    "",
    " ",
    "\0",
    "x" * 5000,
    "->",
    True,
    0,
    -1,
    2.5,
    10**40,
    1e300,
    [],
    [None],
    ["x"],
    [True],
    {},
    {"a": None},
]
NUMBERS = {
    path: [name for name, value in fields.items() if isinstance(value, int) and not isinstance(value, bool)]
    for path, fields in ROUTES.items()
    if path != "/v1/sessions"
}


@pytest.mark.parametrize("path", ROUTES)
def test_odd_values_are_accepted_or_refused(start_speech, path):
    """No odd value causes a 500. InfiniSST's routes refuse ``true`` in fields that are numbers."""
    speech = start_speech(http={"max_sessions_per_tenant": 10_000}, router={"timeout_s": 0.2})
    usual = ROUTES[path]
    for field in usual:
        for value in VALUES:
            answer = speech.client.post(path, json=usual | {field: value})
            assert answer.status_code < 500 or answer.json()["code"] == "deadline_passed", (
                field,
                value,
                answer.text,
            )
            if value is True and field in NUMBERS.get(path, ()):
                assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
            if isinstance(value, (str, int, float)) and path not in {
                "/v1/sessions",
                "/translate",
                "/ray/configure",
            }:
                query = {name: str(text) for name, text in (usual | {field: value}).items()}
                answer = speech.client.post(path, params=query)
                assert answer.status_code < 500, (field, value, answer.text)


@pytest.mark.parametrize("empty", [None, ""])
def test_a_name_that_is_empty_counts_as_absent(speech, empty):
    fields = {**PAIR, "client_id": empty, "pool": empty}
    answer = speech.client.post("/init", json=fields)
    assert answer.status_code == 200, answer.text
    shown = speech.show(answer.json()["session_id"])
    assert (shown["client"], shown["pool"]) == ("", "speech")
    if empty is not None:
        assert speech.client.post("/init", params=fields).status_code == 200
