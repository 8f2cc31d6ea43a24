"""A mistake of the user or an unusable environment gives one line on stderr and exit code 2, and submits nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from daybreak import ArgumentError, AsyncClient, Client, ConfigError
from daybreak.transport import http_options

ELSEWHERE = ("--url", "http://192.0.2.1:8000")
"""An address that no machine has (TEST-NET-1), and for which the command uses the environment's proxy."""


def one_line(text: str) -> str:
    assert len(text.splitlines()) == 1, text
    assert text.startswith("error: ")
    return text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("submit", "echo", "step_s=Infinity"), "step_s=Infinity: JSON has no number Infinity"),
        (("submit", "echo", "step_s=-Infinity"), "JSON has no number -Infinity"),
        (("submit", "echo", "steps=[1,NaN]"), "JSON has no number NaN"),
        (("submit", "echo", "step_s=1e999"), "input.step_s is inf: JSON has no such number"),
        (("submit", "echo", "a=" + "[" * 20000), "a is nested too deeply"),
        (("submit", "echo", "steps=5", "--start-within", "inf"), "start_within_s is inf"),
        (("submit", "echo", "steps=5", "--run-within", "nan"), "run_within_s is nan"),
        (("generate", "x", "--guidance", "inf"), "input.guidance is inf"),
        (
            ("generate", "x", "--idempotency-key", "schlüssel"),
            "the idempotency key 'schlüssel' cannot be sent",
        ),
        (("generate", "x", "--idempotency-key", "a\nb"), "cannot be sent"),
        (("submit", "echo", 'message="\\ud800"'), "input.message is not valid UTF-8"),
        (("tasks", "watch", "video_01", "--after", "then"), "'then' is not an event id"),
        (("tasks", "list", "--limit", "0"), "Invalid value for '--limit'"),
        (("tasks", "list", "--state", "paused"), "Invalid value for '--state'"),
        (("generate", "x", "--seed", "one"), "Invalid value for '--seed'"),
        (("generate", "x", "--image", "none.png"), "Invalid value for '--image'"),
        (("generate", "x", "--colour"), "No such option"),
        (("generate",), "Missing argument 'prompt'"),
        (("tusks",), "No such command 'tusks'"),
        (("generate", "x", "y"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    command: Any, scripted: Any, make: Any, words: tuple[str, ...], message: str
) -> None:
    scripted.answers = [make.answer(make.task(state="running"))]
    code, out, err = command(*words)
    assert (code, out) == (2, ""), err
    assert message in one_line(err)
    assert [seen.path for seen in scripted.seen if seen.method != "GET"] == []


def test_usage_errors_are_json_with_json(command: Any) -> None:
    code, out, err = command("tasks", "list", "--json", "--limit", "none")
    assert (code, out) == (2, "")
    assert json.loads(err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "words",
    [
        ("generate", b"caf\xe9"),
        ("generate", "x", "--metadata", b"place=caf\xe9"),
        ("generate", "x", "--idempotency-key", b"caf\xe9"),
        ("generate", "x", "--pool", b"caf\xe9"),
        ("submit", b"caf\xe9"),
        ("submit", "echo", b"caf\xe9=1"),
        ("tasks", "show", b"caf\xe9"),
        ("tasks", "list", "--pool", b"caf\xe9"),
        ("pools", b"caf\xe9"),
        ("--url", b"http://caf\xe9", "pools"),
        (b"caf\xe9",),
    ],
)
def test_arguments_that_are_not_utf8_are_wrong_usage(
    process: Any, scripted: Any, served: bytes, words: tuple[str | bytes, ...]
) -> None:
    done = process(*words)
    assert (done.code, done.out) == (2, b""), done.error
    one_line(done.error)
    assert scripted.seen == []


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks://127.0.0.1:1080"},
        {"ALL_PROXY": "socks5://127.0.0.1:1080"},
        {"HTTP_PROXY": "http://[::1"},
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
        {"SSL_CERT_FILE": "/etc/hostname"},
    ],
)
def test_an_unusable_environment_is_reported(process: Any, variables: dict[str, str]) -> None:
    done = process(*ELSEWHERE, "pools", **variables)
    assert (done.code, done.out) == (2, b""), done.error
    assert "proxy" in one_line(done.error).lower()


def test_no_proxy_is_used_for_this_machine(process: Any, served: bytes) -> None:
    done = process("tasks", "show", "video_01", ALL_PROXY="socks://127.0.0.1:1080")
    assert done.code == 0, done.error


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://::1:8000", "an IPv6 address needs brackets: http://[::1]:8000"),
        ("http://2001:db8::7/base", "brackets: http://[2001:db8::7]/base"),
        ("http://[::1", "is not a URL"),
        ("http://host:70000", "is not a URL such as"),
        ("host:8000", "is not a URL such as"),
        ("http://a\x1bb", "is not a URL"),
        ("http://", "is not a URL such as"),
    ],
)
def test_an_invalid_url_is_wrong_usage(command: Any, url: str, message: str) -> None:
    code, out, err = command("pools", url=url)
    assert (code, out) == (2, "")
    assert message in one_line(err)


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "127.1.2.3", "localhost"])
def test_every_name_of_this_machine_bypasses_proxies(host: str, no_environment: None) -> None:
    from daybreak.config import Config

    assert http_options(Config(url=f"http://{host}:8000"), None)["trust_env"] is False


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("submit", ("echo", {"a": [1, {"b": float("nan")}]}), {}),
    ("submit", ("echo", {"a": "\udce9"}), {}),
    ("submit", ("echo", {"a": object()}), {}),
    ("submit", ("echo", {"a": 1}), {"idempotency_key": "ключ"}),
    ("submit", ("echo", {"a": 1}), {"metadata": {"a": "\udce9"}}),
    ("submit_batch", ([{"pool": "echo", "input": {"a": float("inf")}}],), {}),
    ("replay", ("video_01",), {"idempotency_key": "ключ"}),
    ("estimate", ("echo", {"a": float("inf")}), {}),
    ("get", ("\udce9",), {}),
    ("pool", ("\udce9",), {}),
]


@pytest.mark.parametrize(
    ("name", "args", "kw"), BAD, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_both_clients_reject_what_no_request_can_carry(
    scripted: Any, name: str, args: tuple[Any, ...], kw: dict[str, Any], no_environment: None
) -> None:
    with Client(scripted.url) as client, pytest.raises(ArgumentError):
        getattr(client, name)(*args, **kw)
    async with AsyncClient(scripted.url) as other:
        with pytest.raises(ArgumentError):
            await getattr(other, name)(*args, **kw)
    assert scripted.seen == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_clients_report_an_unusable_proxy(
    kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        kind("http://192.0.2.1:8000")
    monkeypatch.delenv("ALL_PROXY")
    with pytest.raises(ConfigError, match="headers"):
        kind("http://192.0.2.1:8000", headers={"X-Name": "имя"})


def test_a_rejected_json_value_comes_with_a_hint_for_text(command: Any, scripted: Any, make: Any) -> None:
    """A field gets the hint only if the command read its value as JSON, and only if the pool accepts text there."""
    fields = [
        {"field": f"input.{name}", "message": "not so"} for name in ("message", "steps", "title", "note")
    ]
    schema = {
        "properties": {
            "message": {"type": "string"},
            "steps": {"type": "integer"},
            "title": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "note": {"type": "string"},
        }
    }

    def answer(seen: Any) -> Any:
        if seen.method == "POST":
            return make.problem(422, "invalid_input", errors=fields)
        return make.answer(
            {"name": "echo", "workload": "echo", "input_schema": schema, "wake": {"phase": "ready"}}
        )

    scripted.answers = [answer]
    code, _, err = command("submit", "echo", "message=42", "steps=0", "title=true", "note=plain")
    assert code == 2
    assert "for text, write message='\"42\"'" in one_line(err)
    assert "for text, write title='\"true\"'" in err
    assert "write steps=" not in err
    assert "write note=" not in err
    assert scripted.seen[0].json["input"]["message"] == 42
    command("submit", "echo", 'message="42"', "--detach")
    assert scripted.seen[-1].json["input"]["message"] == "42"
