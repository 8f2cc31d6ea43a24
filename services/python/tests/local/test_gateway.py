"""Tests of ``daybreakd gateway --embedded``: a gateway that starts a Valkey itself, so workers need no other server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from daybreak_server.settings.tree import child_environment
from testkit.system import System, request
from testkit.workers import WorkerProcess

IMPORTS = """
import sys
from daybreak_server.local import gateway
assert not {"torch", "ray", "numpy"} & {name.partition(".")[0] for name in sys.modules}
"""


def test_it_serves_models_of_workers_and_keeps_them_across_a_restart(
    systems: Callable[..., System], tmp_path: Path
) -> None:
    gateway = systems("gateway --embedded")
    gateway.ready(60)
    worker = WorkerProcess(tmp_path / "worker", gateway.url)
    try:
        model = {"alias": "small", "source": "org/small", "engine": "test"}
        request(f"{gateway.url}/v1/models/register", model)
        question = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "tokens": 2}
        answer = request(f"{gateway.url}/v1/chat/completions", question)
        assert answer["choices"][0]["message"]["content"] == "word word "
        report = doctor(gateway)
        assert report["worker w1"]["level"] == report["model small"]["level"] == "ok"
        assert "alive, last seen" in report["worker w1"]["found"]
        assert report["model small"]["found"].startswith("ready, 1 of 1")
        assert report["pools"]["found"] == "none is named in the settings, so Ray and torch are not needed"
        assert not {"ray", "torch", "pool video"} & report.keys()
    finally:
        worker.close()
    gateway.end()
    again = systems("gateway --embedded", gateway.folder)
    again.ready(60)
    try:
        assert [found["id"] for found in request(f"{again.url}/v1/models")["data"]] == ["small"]
    finally:
        again.end()  # before the fixture ends `gateway` and waits for all processes of this folder


def doctor(gateway: System) -> dict[str, dict[str, str]]:
    """Run `daybreakd doctor` beside the gateway. :returns: subject → check."""
    result = subprocess.run(
        [Path(sys.executable).with_name("daybreakd"), "doctor", "--json"],
        env=child_environment({"DAYBREAK_DATA_DIR": str(gateway.folder)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return {check["what"]: check for check in json.loads(result.stdout)}


def test_without_a_redis_it_says_what_to_do() -> None:
    daybreakd = Path(sys.executable).with_name("daybreakd")
    result = subprocess.run([daybreakd, "gateway"], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "--embedded" in result.stderr


def test_a_second_one_in_the_same_folder_is_refused(systems: Callable[..., System]) -> None:
    first = systems("gateway --embedded")
    first.ready(60)
    second = systems("gateway --embedded", first.folder)
    assert second.process.wait(60) == 1
    assert str(first.process.pid) in second.output_text()


def test_it_imports_neither_torch_nor_ray() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=120)
