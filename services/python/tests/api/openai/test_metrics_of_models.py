"""Tests of the metrics of models, with a real gateway and a real worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from testkit.waiting import wait_until


def samples(models: Any, name: str) -> dict[tuple[str, ...], float]:
    """The series of a metric at ``/metrics``, by the values of their labels."""
    families = text_string_to_metric_families(models.api.client.get("/metrics").text)
    found = (sample for family in families for sample in family.samples if sample.name == name)
    return {tuple(sample.labels.values()): sample.value for sample in found}


def wait_for(models: Any, name: str, labels: tuple[str, ...], value: float) -> None:
    wait_until(lambda: samples(models, name).get(labels) == value, 60, f"{name} of {labels} to be {value}")


def test_a_gateway_exports_replicas_wakes_and_workers(
    start_models: Callable[..., Any], tmp_path: Path
) -> None:
    models = start_models()
    models.start_worker("w1")
    models.register("chat")
    wait_for(models, "daybreak_models", ("registered",), 1)
    assert models.ask("chat").status_code == 200
    wait_for(models, "daybreak_model_replicas", ("chat", "ready"), 1)
    wait_for(models, "daybreak_model_wake_elapsed_seconds", ("chat",), 0)
    assert samples(models, "daybreak_model_wake_last_seconds")["chat",] > 0
    assert samples(models, "daybreak_workers") == {("active",): 1, ("draining",): 0}
    assert samples(models, "daybreak_workers_wanted") == {(): 1}
    assert samples(models, "daybreak_manager_up") == {(): 1}

    broken = tmp_path / "broken"
    broken.touch()
    models.register("broken", args={"broken": str(broken)}, min_replicas=1)
    models.register("huge", memory_bytes=10**15, min_replicas=1)
    wait_for(models, "daybreak_model_replicas", ("broken", "failed"), 1)
    wait_for(models, "daybreak_model_unplaced_replicas", ("huge",), 1)
    wakes = samples(models, "daybreak_model_wake_elapsed_seconds")
    assert wakes["broken",] > 0
    assert wakes["huge",] > 0
    assert samples(models, "daybreak_workers_wanted") == {(): 2}

    models.api.client.delete("/v1/models/broken").raise_for_status()
    wait_until(
        lambda: "broken" not in models.api.client.get("/metrics").text, 60, "the series of `broken` to end"
    )
