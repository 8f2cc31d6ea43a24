"""Tests of a worker and its gateway: registration, refusal, outages, and how models start, fail and stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from testkit.waiting import wait_until
from testkit.workers import WorkerGateway, WorkerProcess, model

Start = Callable[..., WorkerProcess]


def test_a_second_worker_with_the_same_id_ends_with_the_reason(
    start_worker: Start, start_ready_worker: Start
) -> None:
    first = start_ready_worker()
    second = start_worker()
    assert second.process.wait(60) == 1
    assert f"A worker w1 is alive at {first.url}." in second.log.read_text()
    assert first.ask("m").status_code == 200


def test_a_worker_whose_id_another_one_has_taken_over_ends(
    gateway: WorkerGateway, start_ready_worker: Start
) -> None:
    first = start_ready_worker()
    gateway.workers["w1"] = gateway.workers["w1"].model_copy(update={"incarnation": "another"})
    assert first.process.wait(60) == 1
    assert "Another worker w1 has taken over." in first.log.read_text()


def test_a_worker_that_comes_back_after_a_kill_registers_again(
    gateway: WorkerGateway, start_worker: Start, start_ready_worker: Start
) -> None:
    first = start_ready_worker()
    first.kill()
    again = start_worker(port=first.port)
    wait_until(lambda: len(gateway.registrations) == 2, 60, "the second registration")
    wait_until(lambda: again.ask("m").status_code == 200, 60, "its model to be ready")


def test_a_gateway_that_forgets_a_worker_gets_a_new_registration_and_no_engine_restarts(
    gateway: WorkerGateway, start_ready_worker: Start
) -> None:
    worker = start_ready_worker()
    gateway.forget("w1")
    wait_until(lambda: "w1" in gateway.workers, 30, "the second registration")
    gateway.wait_for("w1", "m", "ready")
    first, second = gateway.registrations
    assert first.incarnation == second.incarnation
    assert len(worker.events("pid")) == 1


def test_what_runs_keeps_running_while_there_is_no_gateway(
    gateway: WorkerGateway, start_ready_worker: Start
) -> None:
    worker = start_ready_worker()
    gateway.stop()
    wait_until(lambda: "cannot be reached" in worker.log.read_text(), 60, "the worker to notice")
    assert worker.ask("m").status_code == 200
    other = WorkerGateway(port=gateway.port)
    try:
        other.want("w1", model("m"))
        other.wait_for("w1", "m", "ready")
        assert len(worker.events("pid")) == 1, "the engine was restarted"
        assert worker.log.read_text().count("cannot be reached") == 1, "the outage was logged again"
    finally:
        worker.close()
        other.stop()


def test_a_worker_waits_for_a_gateway_that_starts_later(tmp_path: Path) -> None:
    gateway = WorkerGateway()
    gateway.stop()
    worker = WorkerProcess(tmp_path / "worker", gateway.url)
    wait_until(lambda: "cannot be reached" in worker.log.read_text(), 60, "the worker to try")
    assert worker.ready_status() == 503
    later = WorkerGateway(port=gateway.port)
    try:
        wait_until(lambda: "w1" in later.workers, 60, "the registration")
        wait_until(lambda: worker.ready_status() == 200, 60, "the worker to be ready")
    finally:
        worker.close()
        later.stop()


def test_a_worker_with_a_wrong_token_ends_with_the_reason(tmp_path: Path) -> None:
    gateway = WorkerGateway(token="right")
    worker = WorkerProcess(tmp_path / "worker", gateway.url, token="wr0ng")
    try:
        assert worker.process.wait(60) == 1
        assert "The token is wrong." in worker.log.read_text()
        assert "wr0ng" not in worker.log.read_text()
    finally:
        worker.close()
        gateway.stop()


def test_a_worker_whose_port_is_taken_ends_before_it_registers(
    gateway: WorkerGateway, start_worker: Start
) -> None:
    worker = start_worker(port=gateway.port)
    assert worker.process.wait(60) == 1
    assert f"cannot listen on 127.0.0.1, port {gateway.port}" in worker.log.read_text()
    assert gateway.registrations == []


def test_an_engine_that_fails_is_restarted_and_says_why_until_it_is_ready(
    gateway: WorkerGateway, start_worker: Start, tmp_path: Path
) -> None:
    """After three failures in a row the model stays `failed` while it starts again, so that clients see the reason."""
    broken = tmp_path / "broken"
    broken.touch()
    gateway.want("w1", model("m", args={"broken": str(broken), "load_s": 3}))
    worker = start_worker()
    failed = gateway.wait_for("w1", "m", "failed").models[0]
    why = "The engine test exited with code 3: CUDA out of memory, as it were. It starts again 1 s later."
    assert failed.reason == why
    assert failed.last_lines == ["loading org/m as m", "CUDA out of memory, as it were"]
    assert "    CUDA out of memory, as it were" in worker.log.read_text()
    wait_until(lambda: "(failure 3 in a row)" in reason(gateway), 60, "the third failure")
    known = len(gateway.heartbeats["w1"]) - 1
    broken.unlink()
    wait_until(lambda: "is being started again" in reason(gateway), 60, "the fourth start")
    assert "exited with code 3 (failure 3 in a row): CUDA out of memory, as it were." in reason(gateway)
    assert gateway.last("w1").models[0].last_lines == failed.last_lines
    ready = gateway.wait_for("w1", "m", "ready").models[0]
    assert (ready.reason, ready.last_lines) == (None, [])
    states = [heartbeat.models[0].state for heartbeat in gateway.heartbeats["w1"][known:]]
    assert set(states) == {"failed", "ready"}


def reason(gateway: WorkerGateway) -> str:
    """Why the model of the worker is in its state, as the worker last reported."""
    return str(gateway.last("w1").models[0].reason)


def test_the_reason_shows_no_line_of_an_engine_that_had_requests(
    gateway: WorkerGateway, start_ready_worker: Start
) -> None:
    """Such a line may contain what one client has sent, and the reason is shown to other clients."""
    worker = start_ready_worker()
    worker.ask("m", crash="before")
    failed = gateway.wait_for("w1", "m", "failed").models[0]
    assert failed.reason == "The engine test exited with code 9. It starts again 1 s later."
    assert failed.last_lines, "administrators see no line of the output"


def test_an_engine_that_does_not_become_ready_in_time_is_restarted(
    gateway: WorkerGateway, start_worker: Start
) -> None:
    gateway.want("w1", model("m", args={"load_s": 600}))
    worker = start_worker(engine={"start_s": 3})
    failed = gateway.wait_for("w1", "m", "failed").models[0]
    assert "was not ready after 3 s" in str(failed.reason)
    wait_until(lambda: len(worker.events("pid")) == 2, 60, "the second try")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "other"}, "This worker has no engine other. It has vllm, llama.cpp, sglang, test."),
        ({"args": {"port": 1}}, "the worker sets port"),
        ({"source": "--help"}, "looks like an option"),
    ],
)
def test_a_model_that_cannot_be_started_says_why(
    gateway: WorkerGateway, start_worker: Start, changes: dict[str, object], reason: str
) -> None:
    gateway.want("w1", model("m", **changes))
    worker = start_worker()
    assert reason in str(gateway.wait_for("w1", "m", "failed").models[0].reason)
    assert worker.ask("m").headers["daybreak-refused"] == "failed"


def test_requests_end_before_a_model_or_the_worker_stops(
    gateway: WorkerGateway, start_worker: Start, tmp_path: Path
) -> None:
    gateway.want("w1", model("m"), model("n"))
    worker = start_worker(engine={"stop_s": 0.1})
    # The requests stay open for this long. An engine that did not wait for them would cut their answers off sooner.
    too_early_s = 1.0
    for alias in ("m", "n"):
        gateway.wait_for("w1", alias, "ready")
    with worker.client() as client:
        m, n = ({"stream": True, "model": alias, "until": str(tmp_path / alias)} for alias in ("m", "n"))
        with (
            client.stream("POST", "/v1/chat/completions", json=m) as of_m,
            client.stream("POST", "/v1/chat/completions", json=n) as of_n,
        ):
            gateway.want("w1", model("n"))
            gateway.wait_for("w1", "m", "draining")
            assert worker.ask("m").headers["daybreak-refused"] == "draining"
            time.sleep(too_early_s)
            (tmp_path / "m").touch()
            assert of_m.read().endswith(b"data: [DONE]\n\n")
            worker.terminate()
            wait_until(lambda: gateway.last("w1").draining, 30, "the worker to say that it drains")
            assert worker.ready_status() == 503
            assert worker.ask("n").headers["daybreak-refused"] == "draining"
            time.sleep(too_early_s)
            (tmp_path / "n").touch()
            assert of_n.read().endswith(b"data: [DONE]\n\n")
    assert worker.process.wait(60) == 0
    assert gateway.workers == {}


@contextmanager
def long_answer(worker: WorkerProcess) -> Iterator[None]:
    """A streamed answer of the model ``m`` that has begun and lasts for a thousand seconds."""
    body = {"model": "m", "stream": True, "tokens": 10_000, "pause": 0.1}
    with worker.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
        parts = answer.iter_raw()
        next(parts)
        yield


def test_requests_that_do_not_end_in_time_are_cut_off(start_ready_worker: Start) -> None:
    worker = start_ready_worker(drain_s=0.5)
    with long_answer(worker):
        worker.terminate()
        assert worker.process.wait(60) == 0
    assert "1 requests have not ended within 0.5 s" in worker.log.read_text()


def test_a_second_signal_ends_a_worker_at_once(gateway: WorkerGateway, start_ready_worker: Start) -> None:
    worker = start_ready_worker(drain_s=600)
    with long_answer(worker):
        worker.terminate()
        wait_until(lambda: gateway.last("w1").draining, 30, "the worker to say that it drains")
        time.sleep(0.1)  # two signals that arrive together count as one
        worker.terminate()
        assert worker.process.wait(60) == 0


def test_a_replica_starts_once_its_gpu_is_free(
    gateway: WorkerGateway, start_worker: Start, tmp_path: Path
) -> None:
    gateway.want("w1", model("a", gpus=[0]))
    worker = start_worker()
    gateway.wait_for("w1", "a", "ready")
    guardians = psutil.Process(worker.process.pid).children()
    may_end = tmp_path / "may-end"
    with worker.client() as client:
        body = {"model": "a", "stream": True, "until": str(may_end)}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            gateway.want("w1", model("b", gpus=[0, 1]))
            waiting = gateway.wait_for("w1", "b", "starting")
            assert {found.alias: found.state for found in waiting.models}["a"] == "draining"
            later = len(gateway.heartbeats["w1"]) + 3
            wait_until(lambda: len(gateway.heartbeats["w1"]) >= later, 60, "three more heartbeats")
            assert psutil.Process(worker.process.pid).children() == guardians, "b started beside a"
            may_end.touch()
            answer.read()
    gateway.wait_for("w1", "b", "ready")
    assert gateway.state("w1", "a") is None


def test_the_gateway_learns_where_to_reach_the_worker(gateway: WorkerGateway, start_worker: Start) -> None:
    start_worker(worker="here")
    everywhere = start_worker(worker="everywhere", variables={"WORKER_HOST": "0.0.0.0"})
    start_worker(worker="forwarded", variables={"PUBLIC_URL": "https://gpu.example.com/"})
    wait_until(lambda: len(gateway.workers) == 3, 60, "three workers")
    assert gateway.workers["everywhere"].url == everywhere.url, (
        "the worker registered another address than the one where it listens"
    )
    assert gateway.workers["forwarded"].url == "https://gpu.example.com"


def test_an_engine_does_not_get_the_settings_of_the_worker(tmp_path: Path) -> None:
    gateway = WorkerGateway(token="s3cret")
    gateway.want("w1", model("m", engine="show"))
    show = {"command": "sh -c 'env; exit 1' {port}", "env": {"OF_ENGINE": "1"}}
    worker = WorkerProcess(
        tmp_path / "worker", gateway.url, token="s3cret", engines={"show": show}, variables={"HF_HOME": "/x"}
    )
    try:
        gateway.wait_for("w1", "m", "failed")
        log = worker.log.read_text()
        assert "m: HF_HOME=/x" in log
        assert "m: OF_ENGINE=1" in log
        assert "s3cret" not in log
    finally:
        worker.close()
        gateway.stop()
