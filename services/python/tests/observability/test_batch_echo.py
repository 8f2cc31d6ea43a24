"""The workload ``BatchEcho`` gives every metric of batches a value, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daybreak_server.engines.common.batch_metrics import BatchMetrics
from daybreak_server.observability import batch_catalogue
from daybreak_server.observability.catalogue import exported_by
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.serving import Request, RequestError
from testkit.batch_echo import BatchEcho
from testkit.waiting import wait_until


class Running:
    """The workload in a group of its own, and the meter of this group."""

    def __init__(self, **batching: Any) -> None:
        self.meter = PrometheusMeter(exported_by(Exporter.RANK))
        self.workload = BatchEcho()
        self.workload.load(
            Group(options={"batching": batching}, batch_meter=BatchMetrics(self.meter, pool="batches"))
        )

    def ask(self, **wish: Any) -> Any:
        body = json.dumps(wish).encode()
        answer = self.workload.serve(Request(method="POST", path="/", body=body))
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)

    def shown(self) -> str:
        return self.meter.render().decode()


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running(max_batch_size=4, max_waiting=8)
    yield running
    running.workload.close()


def test_every_metric_of_batches_has_a_value(running: Running) -> None:
    assert running.ask(texts=["a", "bc", "def"]) == [1, 2, 3]
    assert [running.ask(texts=["a cat"], cached=True) for _ in range(2)] == [[5], [5]]
    shown = running.shown()
    series = {line.partition("{")[0] for line in shown.splitlines() if not line.startswith("#")}
    missing = [each.name for each in batch_catalogue.ALL if not {each.name, each.name + "_count"} & series]
    assert missing == []
    assert 'daybreak_rank_cache_lookups_total{outcome="hit",pool="batches"} 1.0' in shown


def test_callers_share_a_batch_while_another_one_runs(running: Running) -> None:
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: running.ask(texts=["text"], batch_s=0.2), range(5)))
    assert answers == [[4]] * 5
    debug = running.workload.serve(Request(method="GET", path="/debug"))
    assert isinstance(debug.body, bytes)
    batches = json.loads(debug.body)["batches"]
    assert sum(int(size) * count for size, count in batches.items()) == 5
    assert sum(batches.values()) < 5


def test_a_batch_fails_and_a_line_is_full_as_the_request_wishes(running: Running) -> None:
    with pytest.raises(ValueError, match="its batch fails"):
        running.ask(texts=["a"], fails=True)
    with pytest.raises(RequestError) as refused:
        running.ask(texts=["a"] * 9)
    assert (refused.value.status, refused.value.code) == (422, "too_many")


def test_failures_and_refusals_begin_with_0_and_are_counted(running: Running) -> None:
    failed, refused = "daybreak_rank_batch_failures_total", "daybreak_rank_batch_refused_total"
    counted = 'pool="batches"'
    assert f"{failed}{{{counted}}} 0.0" in running.shown()
    assert f"{refused}{{{counted}}} 0.0" in running.shown()
    with pytest.raises(ValueError, match="its batch fails"):
        running.ask(texts=["a"], fails=True)
    wait_until(lambda: f"{failed}{{{counted}}} 1.0" in running.shown(), 30, "the failure to be counted")
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(running.ask, texts=["text"] * 8, batch_s=0.2) for _ in range(8)]
        errors = [error for call in calls if (error := call.exception(60)) is not None]
    assert {type(error) for error in errors} == {RequestError}
    assert {error.status for error in errors if isinstance(error, RequestError)} == {429}
    assert f"{refused}{{{counted}}} {len(errors)}.0" in running.shown()


def test_it_imports_no_torch() -> None:
    code = "import sys, testkit.batch_echo; sys.exit('torch' in sys.modules)"
    path = [each for each in sys.path if each]
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
