"""A worker from its registration to its end, with real engines."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from testkit.waiting import wait_until
from testkit.workers import WorkerGateway, WorkerProcess, model

Start = Callable[..., WorkerProcess]


def test_a_worker_runs_the_models_that_the_gateway_wants_and_answers_requests(
    gateway: WorkerGateway, start_worker: Start
) -> None:
    gateway.want("w1", model("small", args={"load_s": 0.2}))
    worker = start_worker()
    gateway.wait_for("w1", "small", "ready")
    registered = gateway.workers["w1"]
    assert registered.url == worker.url
    assert registered.engines == ["test"]
    assert registered.memory_bytes > registered.memory_free_bytes > 0
    answer = worker.ask("small", tokens=3)
    assert answer.json()["choices"][0]["message"]["content"] == "word word word "
    gateway.want("w1")
    gateway.wait_for("w1", "small", None)
    assert not psutil.pid_exists(int(worker.events("pid")[0]))
    worker.terminate()
    assert worker.process.wait(30) == 0
    assert gateway.workers == {}


def test_a_worker_runs_the_models_in_the_gateways_latest_answer(
    gateway: WorkerGateway, start_worker: Start
) -> None:
    gateway.want("w1", model("a"), model("b"))
    worker = start_worker()
    gateway.wait_for("w1", "a", "ready")
    gateway.wait_for("w1", "b", "ready")
    pid = worker.ask("b").json()["seen"]["pid"]
    gateway.want("w1", model("b", memory_bytes=5), model("c"))
    gateway.wait_for("w1", "c", "ready")
    gateway.wait_for("w1", "a", None)
    assert worker.ask("b").json()["seen"]["pid"] == pid, "the engine was restarted"
    assert worker.ask("a").status_code == 404
    gateway.want("w1", model("b", args={"load_s": 0.1}))
    wait_until(
        lambda: worker.ask("b").json().get("seen", {}).get("pid", pid) != pid,
        60,
        "a new process, because the args have changed",
    )
