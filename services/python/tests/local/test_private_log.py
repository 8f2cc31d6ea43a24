"""The log of a real run has no text of an input and no password.

The workload of these tests quotes its prompt in log lines and errors.
"""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.system import System, request
from testkit.valkey import Server

PARENT = str(Path(__file__).parents[2])
PROMPT = 'A marker-7f3a "quoted" prompt: Žižek draws\na purple hippopotamus'
MARKERS = ("marker-7f3a", "Žižek", "\\u017d", "purple", "hippopotamus")
PASSWORD = "hunter2-s3cret"


@pytest.fixture
def start_system(valkey: Server, systems: Callable[..., System]) -> Callable[..., System]:
    """A function that starts ``daybreakd dev`` with a pool ``indiscreet`` and a Redis that requires a password."""
    with valkey.client() as client:
        client.acl_setuser(
            "daybreak", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], commands=["+@all"]
        )  # fmt: skip

    def start(**variables: str) -> System:
        system = systems(
            "dev",
            PYTHONPATH=PARENT,
            DAYBREAK_REDIS__URL=valkey.url.replace("redis://", f"redis://daybreak:{PASSWORD}@"),
            DAYBREAK_REDIS__PREFIX=f"private-{len(variables)}",
            DAYBREAK_POOLS__INDISCREET__WORKLOAD="testkit.indiscreet:SPEC",
            DAYBREAK_LOG__FORMAT="json",
            DAYBREAK_LOG__LEVEL="debug",
            **variables,
        )
        system.ready(60)
        return system

    return start


def submit(system: System, **changes: Any) -> str:
    body = {"pool": "indiscreet", "input": {"prompt": PROMPT}, "metadata": {"note": "x"}, **changes}
    return request(f"{system.url}/v1/tasks", body)["id"]


def log_of(system: System) -> list[dict[str, Any]]:
    """The lines of the log, without those that `dev` prints for people."""
    return [json.loads(line) for line in system.output_text().splitlines() if line.startswith("{")]


def test_a_log_has_no_text_of_an_input_and_no_password(start_system: Callable[..., System]) -> None:
    """The level is ``debug``. Tasks succeed, retry and fail, one is replayed, and a request is refused."""
    system = start_system()
    done = submit(system)
    assert system.wait(done)["state"] == "succeeded"
    failed = submit(system, input={"prompt": PROMPT, "fails": 9}, max_strikes=1)
    assert PROMPT.split()[1] in system.wait(failed, "failed")["error"]["message"], "the owner sees the prompt"
    replayed = request(f"{system.url}/v1/tasks/{done}/replay", {})["id"]
    system.wait(replayed)
    with pytest.raises(urllib.error.HTTPError, match="422"):
        submit(system, input={"prompt": PROMPT, "fails": PROMPT})
    lines = log_of(system)
    messages = [line["message"] for line in lines]
    assert any("cost function failed" in message for message in messages), "the API's traceback is in the log"
    assert any("truncated" in message for message in messages), (
        "the lines that the workload logs are in the log"
    )
    assert any("KeyError" in line.get("exception", "") for line in lines)
    for marker in (*MARKERS, PASSWORD):
        assert marker not in system.output_text()
    changes = [line["change"] for line in lines if line.get("task") == failed and "change" in line]
    assert sorted(changes) == ["failed", "started", "submitted"]
    assert any(line.get("request_id") for line in lines if line.get("change") == "submitted")


def test_a_log_has_inputs_only_if_the_setting_says_so(start_system: Callable[..., System]) -> None:
    system = start_system(DAYBREAK_LOG__INPUTS="true")
    task = submit(system)
    system.wait(task)
    (line,) = [line for line in log_of(system) if line.get("change") == "submitted"]
    assert json.loads(line["input"])["prompt"] == PROMPT
    assert any(
        "tokenizing" in line["message"] and "marker-7f3a" in line["message"] for line in log_of(system)
    )
    assert PASSWORD not in system.output_text()
