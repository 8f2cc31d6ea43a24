"""No input causes a 500, neither a corpus of odd bodies nor any JSON, id or cursor that Hypothesis generates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from api_support import Api, Serving, make_settings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_errors import post

from testkit.valkey import Server


@pytest.fixture(scope="module")
def api(valkey_session: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One server for all tests of this module. No test leaves anything that another test would see."""
    with Serving(valkey_session, tmp_path_factory.mktemp("input"), 0, make_settings()) as started:
        yield started


CORPUS = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"nul",
    b"{",
    b'{"pool": "echo", "input": {}} trailing',
    b'{"pool": "echo", "input": {"steps": NaN}}',
    b'{"pool": "echo", "input": {"step_s": 1e400}}',
    b'{"pool": "echo", "input": {"step_s": -1e400}}',
    b'{"pool": "echo", "input": {"steps": ' + b"9" * 5000 + b"}}",
    b'{"pool": "echo", "input": {"steps": ' + b"9" * 4000 + b"}}",
    b'{"pool": "echo", "input": {"step_s": ' + b"9" * 4000 + b"}}",
    b'{"pool": "echo", "input": ' + b"[" * 100_000,
    b'{"pool": "echo", "input": ' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}",
    b'{"pool": "echo", "input": {"message": "\\ud800"}}',
    b'{"pool": "echo", "input": {"message": "\xed\xa0\x80"}}',
    b'{"pool": "echo", "input": {"message": "a\\u0000b"}}',
    b'{"pool": "echo", "pool": "clips", "input": {}}',
    b'{"pool": "echo", "input": {}, "metadata": {"\\u0000": "\\u0000"}}',
    b'{"pool": "echo", "input": {}, "metadata": {"__proto__": "x"}}',
    b'{"pool": "echo", "input": {}, "start_at": 1e300}',
    b'{"pool": "echo", "input": {}, "start_at": "0001-01-01T00:00:00+23:59"}',
    b'{"pool": "echo", "input": {}, "start_at": "9999-12-31T23:59:59-23:59"}',
    b'{"pool": "echo", "input": {}, "start_within_s": 1e-300}',
    b'{"pool": "echo", "input": {"' + b"k" * 100_000 + b'": 1}}',
    b'{"pool": "echo", "input": {' + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}}",
    b'{"pool": "echo\\n", "input": {}}',
    b'{"tasks": [[], 1, null, "x"]}',
    b'{"tasks": {"0": {}}}',
]


@pytest.mark.parametrize("path", ["/v1/tasks", "/generate", "/v1/tasks:batch", "/v1/estimate"])
def test_no_body_of_the_corpus_causes_a_500(api: Api, path: str) -> None:
    """Odd JSON is accepted or refused, and refusals stay small."""
    for body in CORPUS:
        response = post(api, body, path)
        assert response.status_code in {200, 202, 207, 400, 404, 413, 422}, (
            path,
            body[:80],
            response.text[:300],
        )
        assert len(response.content) < 20_000, body[:80]
        if response.status_code == 202:
            assert api.client.get(response.headers["location"]).status_code == 200, body[:80]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near = st.fixed_dictionaries(
    {"pool": st.sampled_from(["echo", "clips"]) | anything, "input": anything},
    optional={
        "priority": st.sampled_from(["low", "high"]) | anything,
        "start_at": st.datetimes().map(lambda t: t.isoformat() + "Z") | anything,
        "start_within_s": st.floats(allow_nan=False, allow_infinity=False) | anything,
        "run_within_s": anything,
        "max_strikes": st.integers(0, 25) | anything,
        "metadata": st.dictionaries(st.text(max_size=70), st.text(max_size=20), max_size=20) | anything,
    },
)
echo_input = st.fixed_dictionaries(
    {},
    optional={
        "message": st.text(max_size=50) | anything,
        "steps": st.integers() | anything,
        "step_s": st.floats(allow_nan=False) | anything,
        "fail_at": anything,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything | near | st.fixed_dictionaries({"pool": st.just("echo"), "input": echo_input}))
def test_no_json_causes_a_500(api: Api, body: Any) -> None:
    """Any JSON yields a task or a problem, and the task can be read back."""
    response = post(api, body)
    assert response.status_code in {202, 400, 404, 413, 422}, response.text
    if response.status_code == 202:
        task = response.json()
        assert api.get(task["id"])["input"] == task["input"]
    else:
        assert response.json()["request_id"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=60))
def test_no_id_cursor_or_event_id_causes_a_500(api: Api, text: str) -> None:
    """Malformed ids, names, cursors and event ids get 400, 404, 405 or 422 on every path."""
    assume(text not in ("echo", "clips"))  # the names of the pools
    part, task = quote(text, safe=""), "echo_01AAAAAAAAAAAAAAAAAAAAAAAA"
    for path in (
        f"/v1/tasks/{part}",
        f"/v1/tasks/{part}/events",
        f"/v1/tasks/{part}/preview",
        f"/v1/tasks/{task}/artifacts/{part}",
        f"/v1/pools/{part}",
        f"/v1/tasks?after={part}",
        f"/v1/tasks?pool={part}",
        f"/v1/tasks?state={part}",
        f"/v1/tasks/{task}/events?after={part}",
        f"/v1/tasks/{part}/logs",
        f"/v1/tasks/{task}/logs?after={part}",
        f"/v1/tasks/{task}/logs?follow={part}",
    ):
        response = api.client.get(path)
        assert response.status_code in {400, 404, 405, 422} or path.endswith(("/.", "/..")), (
            path,
            response.text,
        )
