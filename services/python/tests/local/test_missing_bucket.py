"""Tests that a missing bucket is reported in every view of the pool, and that creating the bucket fixes the pool."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.causes import Cause
from daybreak_server.local.wake_status import WakeReporter
from daybreak_server.settings.tree import Settings
from testkit.system import System, request
from testkit.valkey import start_valkey
from testkit.waiting import wait_until

CAUSE = "there is no such bucket; create it, or name another one in DAYBREAK_ARTIFACTS__URL"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 server without a bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_missing_bucket_is_reported_in_every_view_and_tasks_run_once_it_exists(
    systems: Callable[..., System], s3: str
) -> None:
    """The pool, its group, the waiting task, the terminal and the client's command show the cause."""
    system = systems(
        "dev",
        DAYBREAK_ARTIFACTS__URL="s3://not-there/x",
        DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL=s3,
        DAYBREAK_ARTIFACTS__S3__PATH_STYLE="true",
        **KEYS,
    )
    system.ready(60)
    task = system.submit(message="hello", steps=1)

    def pool_with_problem() -> dict[str, Any] | None:
        view = request(f"{system.url}/v1/pools/echo")
        return view if view.get("condition") else None

    view = wait_until(pool_with_problem, 60, "the pool to show the problem")
    assert CAUSE in view["condition"]["message"]
    assert CAUSE in view["groups"][0]["detail"]
    waiting = request(f"{system.url}/v1/tasks/{task}")
    assert (waiting["state"], CAUSE in waiting["wake"]["message"]) == ("queued", True)
    assert CAUSE in system.output_text()
    command = subprocess.run(
        [str(Path(sys.executable).with_name("daybreak")), "--url", system.url, "pools"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "echo has a problem: " in command.stderr
    assert CAUSE in command.stderr
    client = boto3.session.Session("a", "b").client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="not-there")
    client.close()
    assert system.wait(task)["strikes"] == 0
    wait_until(lambda: pool_with_problem() is None, 30, "the pool to show no problem")


def test_up_prints_the_problem_of_a_pool_once(tmp_path: Path) -> None:
    """The reporter polls repeatedly, but prints a message only once."""
    server = start_valkey(tmp_path / "valkey")
    lines: list[str] = []
    settings = Settings.model_validate(
        {"redis": {"url": server.url}, "pools": {"echo": {"groups": 1}}, "data_dir": tmp_path}
    )
    queue, reporter = RedisQueue(server.url, pool="echo"), WakeReporter(settings, say=lines.append)
    try:
        queue.report_failure(
            Cause(reason="ArtifactsRefused", message="s3://b: there is no such bucket; make it")
        )
        reporter.start()
        wait_until(lambda: lines, 30, "a line")
        assert lines == ["pool echo has a problem: s3://b: there is no such bucket; make it"]
    finally:
        reporter.stop()
        queue.close()
        server.stop()
    assert len(lines) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "wake-reporter"]
