"""Tests of what a rank measures of its work. A measurement that fails does not disturb the work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from daybreak_server import wiring
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.scripts import SCRIPTS
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Failed, Finished
from daybreak_server.engines.common.rank_metrics import BROKEN, PHASES_MAX, RankMetrics
from daybreak_server.local.free_ports import free_port
from daybreak_server.observability import catalogue
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter, HistogramSeries, Metric, NoMeter
from daybreak_server.ports.store_errors import StoreUnavailableError
from testkit.pools import Pool


@pytest.fixture
def meter() -> PrometheusMeter:
    return PrometheusMeter(catalogue.exported_by(Exporter.RANK))


def value(meter: PrometheusMeter, name: str, **labels: str) -> float | None:
    return meter.registry.get_sample_value(f"daybreak_rank_{name}", {"pool": "video", **labels})


def test_steps_and_phases_are_measured_and_an_attempt_ends_its_last_phase(meter: PrometheusMeter) -> None:
    """A phase that the engine adds, such as the upload, has no steps."""
    metrics = RankMetrics(meter, pool="video")
    metrics.begin_attempt()
    for phase in ("denoise", "denoise", "decode"):
        metrics.step(phase)
    metrics.begin_phase("upload")
    metrics.end_attempt(Finished(artifacts=()))
    assert value(meter, "step_seconds_count", phase="denoise") == 2
    assert value(meter, "step_seconds_count", phase="upload") is None
    assert [value(meter, "phase_seconds_count", phase=p) for p in ("denoise", "decode", "upload")] == [
        1,
        1,
        1,
    ]
    assert value(meter, "attempts_total", outcome="finished") == 1


def test_every_end_of_an_attempt_is_counted(meter: PrometheusMeter) -> None:
    metrics = RankMetrics(meter, pool="video")
    for outcome in (Failed(code="x", message=""), None, BROKEN):
        metrics.begin_attempt()
        metrics.end_attempt(outcome)
    assert [value(meter, "attempts_total", outcome=o) for o in ("failed", "lost", "broken")] == [1, 1, 1]


def test_a_workload_with_many_phases_makes_few_series(meter: PrometheusMeter) -> None:
    """A workload may by mistake give each step a separate phase."""
    metrics = RankMetrics(meter, pool="video")
    for number in range(10 * PHASES_MAX):
        metrics.step(f"step {number}")
    assert value(meter, "step_seconds_count", phase="other") == 9 * PHASES_MAX


def test_the_ages_of_a_follower_have_no_lease(meter: PrometheusMeter) -> None:
    """Only the leader holds a lease."""
    RankMetrics(meter, pool="video", rank=1).ages(2.0, lease_s=None)
    assert value(meter, "heartbeat_age_seconds", rank="1") == 2.0
    assert value(meter, "lease_age_seconds") is None
    RankMetrics(meter, pool="video").ages(1.0, lease_s=3.0)
    assert value(meter, "lease_age_seconds") == 3.0


def test_a_leader_measures_its_calls_of_scripts(pools: Callable[..., Pool], meter: PrometheusMeter) -> None:
    """Each call is counted under the name of its script, whichever thread of the leader makes the call."""
    pool = pools()
    rank = wiring.build_rank(pool.settings, pool.name, on_broken=print, meter=meter)
    rank.start()
    try:
        for _ in range(2):
            pool.wait(pool.submit(steps=2))
    finally:
        rank.stop(timeout_s=5)
    samples = [
        sample
        for family in meter.registry.collect()
        if family.name == catalogue.RANK_SCRIPT.name
        for sample in family.samples
        if sample.name.endswith("_count")
    ]
    counts = {sample.labels["script"]: sample.value for sample in samples}
    assert counts["settle"] == 2
    assert counts["claim"] >= 1
    assert counts["group"] >= 1
    assert counts.keys() <= SCRIPTS.keys()
    assert {sample.labels["pool"] for sample in samples} == {pool.name}


def test_a_call_that_fails_is_measured_too(meter: PrometheusMeter) -> None:
    """In an outage, calls fail slowly, so failed calls must be measured. Here no server listens at the address."""
    metrics = RankMetrics(meter, pool="video")
    queue = RedisQueue(f"redis://127.0.0.1:{free_port()}", pool="video", on_call=metrics.script_called)
    with contextlib.closing(queue), pytest.raises(StoreUnavailableError):
        queue.claim(GroupRecord(id=new_group_id(), state=GroupState.IDLE), wait_s=0)
    assert value(meter, "script_seconds_count", script="claim") == 1


def test_a_measurement_that_fails_is_logged_once_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The work must not fail because a duration cannot be measured."""

    class Broken(NoMeter):
        def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
            raise ZeroDivisionError

    metrics = RankMetrics(Broken(), pool="video")
    for _ in range(3):
        metrics.claimed(0.1)
    assert [record.message for record in caplog.records] == ["the measurement `claimed` failed"]
