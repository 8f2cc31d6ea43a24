"""Tests of the arithmetic of the Kubernetes benchmark: each figure and its baseline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[5]))
pytest.importorskip("kubernetes")

from verification.benchmarks.k8s import rows
from verification.benchmarks.k8s.timeline import WakeCycle


def cycle(*, detected_s: float = 2.0, formed_s: float = 12.0) -> WakeCycle:
    return WakeCycle(
        detected_s=detected_s,
        patched_s=2.5,
        formed_s=formed_s,
        gone_s=3.0,
        phases={"ray_s": 4.0},
    )


class Baselines:
    def __init__(self) -> None:
        self.start_s = [2.0, 1.0, 30.0]
        self.join_s = [6.0, 6.5, 6.0]
        self.load_s = [5.0]


def test_a_post_at_zero_is_compared_with_one_with_a_warm_group() -> None:
    """The benchmark compares the medians of one run, so that one slow response decides nothing."""
    assert rows.post([10, 12, 90], [10, 10, 10]).held is True
    assert rows.post([13, 13, 13], [10, 10, 10]).held is False


def test_a_group_is_compared_with_its_baseline_from_the_patch_on() -> None:
    """KEDA's polling has a separate row. The baseline is the median of the sums of `start_s` and `join_s`."""
    detect, group = rows.wakes("echo", [cycle(), cycle(), cycle(formed_s=40.0)], Baselines())
    assert (detect.value, detect.held) == (2.0, True)
    assert (group.value, group.baseline, group.held) == (9.5, 8.0, True)
    assert "ray 4.0" in group.note


def test_a_group_of_two_hosts_is_compared_with_two_bare_pods_and_shows_its_phases() -> None:
    """A start from no pods has no baseline, and therefore no target."""
    group, ray = rows.hosts(
        "two hosts", [cycle(), cycle(formed_s=13.0), cycle(formed_s=14.0)], [9.0, 8.0, 30.0]
    )
    assert (group.value, group.baseline, group.held) == (10.5, 9.0, True)
    assert (ray.what, ray.value) == ("two hosts: phase `ray`", 4.0)
    (bare, *_) = rows.hosts("from no pods", [cycle()], [])
    assert (bare.baseline, bare.held) == (None, None)


def test_a_late_detection_is_a_miss() -> None:
    """KEDA polls every 2 s, and one more second is allowed."""
    detect, group = rows.wakes("echo", [cycle(detected_s=3.5)], None)
    assert detect.held is False
    assert group.held is None
