"""Tests of the routes by which InfiniSST's clients see and change how a pool forms batches. Changes are stored."""

from __future__ import annotations

import pytest
from session_support import POOLS
from test_infinisst import init

REMOTE = {"X-Forwarded-For": "203.0.113.9"}


def configure(speech, status: int = 200, headers: dict[str, str] | None = None, **fields):
    response = speech.client.post("/ray/configure", json=fields, headers=headers or {})
    assert response.status_code == status, response.text
    return response.json()


def test_a_change_is_stored_and_shown(speech):
    answer = configure(speech, max_batch_size=16, batch_timeout_ms=150.0, enable_dynamic_batching=True)
    held = answer["configuration"]
    assert answer["success"]
    assert (held["max_batch_size"], held["batch_timeout_ms"], held["strategy"]) == (16, 150.0, "iteration")
    stats = speech.client.get("/ray/stats").json()
    assert stats["configuration"] == held
    assert configure(speech, strategy="mixed")["configuration"]["strategy"] == "mixed"
    assert configure(speech, gather_size=4)["configuration"]["max_batch_size"] == 16
    for tokens in (64, 0):
        assert configure(speech, max_batch_tokens=tokens)["configuration"]["max_batch_tokens"] == tokens


def test_dynamic_batching_is_a_strategy(speech):
    off = configure(speech, enable_dynamic_batching=False)["configuration"]
    assert (off["strategy"], off["enable_dynamic_batching"]) == ("single", False)
    on = configure(speech, enable_dynamic_batching=True)["configuration"]
    assert (on["strategy"], on["enable_dynamic_batching"]) == ("iteration", True)
    configure(speech, strategy="request")
    assert configure(speech, enable_dynamic_batching=True)["configuration"]["strategy"] == "request"


def test_http_accepts_a_strategy_of_your_own_only_if_the_settings_name_it(start_speech):
    """If any import path were accepted, a client could make the server import any module."""
    own = "alternate:Alternate"
    speech = start_speech(pools={"speech": POOLS["speech"] | {"sessions": {"strategy": own}}})
    for strategy in ("single", own):
        assert configure(speech, strategy=strategy)["configuration"]["strategy"] == strategy
    refused = configure(speech, status=422, strategy="os:PathLike")
    assert refused["errors"][0]["message"].endswith("Use iteration, mixed, request, single, " + own + ".")
    assert configure(speech, enable_dynamic_batching=False)["configuration"]["strategy"] == "single"
    assert configure(speech, enable_dynamic_batching=True)["configuration"]["strategy"] == own


@pytest.mark.parametrize(
    "fields",
    [
        {"max_batch_size": 0},
        {"max_batch_size": 33},
        {"max_batch_size": "many"},
        {"max_batch_size": True},
        {"batch_timeout_ms": False},
        {"batch_timeout_ms": -1},
        {"max_batch_tokens": -1},
        {"max_batch_tokens": 0.5},
        {"max_batch_tokens": True},
        {"strategy": "magic"},
        {"strategy": "testkit.session_workload:pairs"},
        {"load_balance_strategy": "round_robin"},
        {"colour": "red"},
    ],
)
def test_a_wrong_value_is_named_and_changes_nothing(speech, fields):
    before = speech.client.get("/ray/stats").json()["configuration"]
    problem = configure(speech, status=422, gather_size=2, **fields)
    assert problem["errors"][0]["field"] == next(iter(fields))
    assert speech.client.get("/ray/stats").json()["configuration"] == before


def test_only_administrators_change_it(speech):
    assert configure(speech, status=403, headers=REMOTE, max_batch_size=1)["code"] == "forbidden"


def test_sessions_and_groups_are_counted(speech):
    init(speech)
    stats = speech.client.get("/ray/stats").json()
    assert (stats["active_sessions"], stats["waiting_sessions"], stats["ray_based"]) == (1, 0, True)
    assert [(group["id"], group["sessions"]) for group in stats["groups"]] == [("g-1", 1)]
    shown = speech.client.get("/stats").json()["scheduler_stats"]
    assert stats["throughput"] == stats["groups"][0]["throughput"]
    assert stats["throughput"] == {
        "audio_seconds_per_second": 1.5,
        "tokens_per_second": 0,
        "batches_per_second": 0,
    }
    assert shown["queue_sizes"] == {"g-1": {"sessions": 1, "prefill": 2, "decode": 3}}
