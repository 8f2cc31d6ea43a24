"""The tests that may be skipped, and why. Any other skipped test fails the run."""

from __future__ import annotations

from typing import Final

_NO_SHELL = "the image of Redis has no shell; --redis-image selects another image"
_NO_PROMETHEUS = "prometheus or prometheus-alertmanager is not on PATH"
ALLOWED: Final[dict[str, str]] = {
    "test_the_charts_monitors_find_every_pod": _NO_PROMETHEUS,
    "test_a_kubernetes_alert_fires_in_its_fault_and_resolves_after_it": _NO_PROMETHEUS,
    "test_a_wake_without_a_ready_group_sets_off_an_alert": _NO_PROMETHEUS,
    "test_a_kubernetes_alert_has_its_metrics": _NO_PROMETHEUS,
    "test_prometheus_evaluates_every_rule_of_the_chart": _NO_PROMETHEUS,
    "test_every_query_that_needs_kubernetes_has_data": _NO_PROMETHEUS,
    "test_a_rank_gets_a_gpu": "no node advertises nvidia.com/gpu",
    "test_a_restore_brings_back_the_tasks_of_the_backup": _NO_SHELL,
    "test_tasks_survive_the_move_to_an_external_redis": _NO_SHELL,
    "test_tasks_survive_an_upgrade_from_the_previous_version_and_back": "no --previous-image; see `make previous`",
    "test_tasks_survive_an_upgrade_and_a_rollback": "no --next-image; `make e2e-full` passes it",
}
"""Name of the test, without its parameters → why it may be skipped."""
