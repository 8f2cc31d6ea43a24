"""Runs ``daybreakd dev`` with workloads that misbehave, and tests what clients see over HTTP and in the SDK."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from daybreak import Client, UnavailableError
from testkit.system import System, request
from testkit.waiting import wait_until

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dev(systems: Callable[..., System]) -> System:
    system = systems(
        "dev",
        PYTHONPATH=str(TESTS.parent),
        DAYBREAK_POOLS__MISBEHAVING__WORKLOAD="testkit.misbehaving:SPEC",
        DAYBREAK_POOLS__SPEECH__WORKLOAD="testkit.session_workload:WITHOUT_MODEL",
        DAYBREAK_POOLS__SPEECH__OPTIONS__FOLDER="/models/empty",
    )
    system.ready(60)
    return system


def submit(system: System, pool: str = "misbehaving", **options: Any) -> str:
    task_options = {name: options.pop(name) for name in ("max_strikes",) if name in options}
    return request(f"{system.url}/v1/tasks", {"pool": pool, "input": options, **task_options})["id"]


def events(system: System, task: str) -> str:
    """Read the stream of a task to its end, which is the terminal event."""
    with urllib.request.urlopen(f"{system.url}/v1/tasks/{task}/events", timeout=60) as stream:
        return stream.read().decode()


def test_a_workload_that_exits_gets_strikes_and_its_group_stays(dev: System) -> None:
    """A task that calls ``sys.exit`` in each attempt gets all its strikes, and its error has the exit code."""
    (before,) = wait_until(lambda: request(f"{dev.url}/v1/pools/misbehaving")["groups"], 60, "the group")
    task = dev.wait(submit(dev, error="exit", max_strikes=2), "failed")
    assert (task["attempt"], task["strikes"], task["releases"]) == (2, 2, 0)
    assert task["error"]["message"].startswith("SystemExit: 3")
    dev.wait(submit(dev))
    (after,) = request(f"{dev.url}/v1/pools/misbehaving")["groups"]
    assert after["id"] == before["id"]
    assert "is being replaced" not in dev.output_text()


def test_a_group_without_its_model_tries_less_and_less_often_and_sessions_get_the_reason(dev: System) -> None:
    """The log has a line for each attempt, not a traceback."""
    wait_until(
        lambda: "could not start; the next attempt begins in 6 s" in dev.output_text(), 60, "two attempts"
    )
    text = dev.output_text()
    with (
        Client(dev.url) as client,
        pytest.raises(UnavailableError, match="/models/empty has no config") as caught,
    ):
        client.sessions.open("de")
    assert caught.value.code == "not_ready"
    attempts = re.findall(r"pool speech: its group could not start; the next attempt begins in (\d+) s", text)
    assert attempts[:2] == ["3", "6"]
    assert text.count("cannot continue: ModelMissingError") == len(attempts)
    assert "raise ModelMissingError" not in text, "the log has a traceback"


def test_text_that_is_not_utf8_is_escaped_in_a_complete_stream(dev: System) -> None:
    """An error and a log line contain a file name that is not UTF-8. Both are shown, and the stream is complete."""
    failed = dev.wait(submit(dev, error="surrogate", max_strikes=1), "failed")
    assert (failed["attempt"], failed["releases"]) == (1, 0)
    assert "caf\\udce9.mp4" in failed["error"]["message"]
    task = submit(dev, says="surrogate")
    dev.wait(task)
    stream = events(dev, task)
    assert "event: log" in stream
    assert "event: succeeded" in stream
    assert "is being replaced" not in dev.output_text()


def test_files_with_names_in_any_script_can_be_downloaded(dev: System, tmp_path: Path) -> None:
    """The response of the artifact's URL has a header with the name. The SDK saves the file under this name."""
    names = ["日本.mp4", "中国.mp4", "naïve café.txt"]
    task = dev.wait(submit(dev, files=names))
    assert [file["name"] for file in task["artifacts"]] == ["日本.mp4", "中国.mp4", "naïve-café.txt"]
    for file, original_name in zip(task["artifacts"], names, strict=True):
        assert file["url"] == f"/v1/tasks/{task['id']}/artifacts/{quote(file['name'])}"
        with urllib.request.urlopen(dev.url + file["url"], timeout=30) as response:
            assert response.read().decode() == original_name
            disposition = response.headers["Content-Disposition"]
        assert re.search(r"filename\*=UTF-8''(\S+)", disposition)[1] == quote(file["name"])  # type: ignore[index]
    with Client(dev.url) as client:
        for file, original_name in zip(task["artifacts"], names, strict=True):
            assert client.download(task["id"], file["name"], tmp_path).read_text() == original_name
    assert {path.name for path in tmp_path.iterdir()} == {file["name"] for file in task["artifacts"]}


def test_ranks_get_exactly_the_input_that_the_api_checked(systems: Callable[..., System]) -> None:
    """The input has aliases, a computed field, validators and a random default. A replay gets the same values."""
    system = systems(
        "dev",
        PYTHONPATH=str(TESTS.parent),
        DAYBREAK_POOLS__CONVERTED__WORKLOAD="testkit.converted_input:SPEC",
    )
    system.ready(60)
    task = submit(system, "converted", frameCount=3, tags="a,b", double=4)
    first = system.wait(task)
    assert first["input"]["frameCount"] == 3
    with urllib.request.urlopen(system.url + first["artifacts"][0]["url"], timeout=30) as response:
        received = response.read().decode()
    assert received.startswith("3 ['a', 'b'] 8 ")
    replay = system.wait(request(f"{system.url}/v1/tasks/{task}/replay", {})["id"])
    with urllib.request.urlopen(system.url + replay["artifacts"][0]["url"], timeout=30) as response:
        assert response.read().decode() == received


def test_a_workload_with_a_secret_in_its_input_is_refused_at_start(systems: Callable[..., System]) -> None:
    """The message names the field, and nothing has been started."""
    system = systems(
        "dev",
        PYTHONPATH=str(TESTS.parent),
        DAYBREAK_POOLS__CONVERTED__WORKLOAD="testkit.converted_input:SECRET",
    )
    assert system.process.wait(60) == 2
    assert "the field account.token of Params is a secret" in system.output_text()
    assert "Traceback" not in system.output_text()
