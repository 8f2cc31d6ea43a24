"""Prometheus uses the chart's monitors to watch a pool that goes from zero to two groups and back.

Each query that needs Kubernetes has data. Each alert that only Kubernetes can cause fires during a fault and ends
after it. ``tests/observability/test_live.py`` tests all other queries and alerts on one machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from dashboards import ALL
from dashboards.model import KUBERNETES, Query

from daybreak_server.observability import batch_catalogue, promql, request_catalogue, session_catalogue
from daybreak_server.observability.alerts import Alert
from daybreak_server.observability.alerts_kubernetes import KUBERNETES_ALERTS
from daybreak_server.observability.prometheus_rules import ALL as ALERTS
from e2e.alert_faults import FAULTS, Fault, the_spec_of_a_pool_is_unreadable
from e2e.kuberay_metrics import NAME as KUBERAY
from e2e.kuberay_metrics import kuberay_metrics
from testkit.kubernetes.cluster_watch import ClusterWatch
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log
from testkit.prometheus import missing_programs

pytestmark = pytest.mark.core
POOL = "echo"
KEDA = "keda-operator"
_TIMEOUT_S = 90.0
_OF_OTHER_KINDS = {
    metric.name for metric in (*request_catalogue.ALL, *batch_catalogue.ALL, *session_catalogue.ALL)
}
"""Metrics of requests, batches and sessions. No pool of this module exports them; the pools of
``tests/observability/test_live.py`` do."""
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Observed:
    """The installation, and the Prometheus that watches it."""

    deployment: Deployment
    cluster: ClusterWatch

    def data(self, expression: str) -> list[dict[str, Any]]:
        """The series of a query over the whole run."""
        return self.cluster.watch.over(expression)

    def sent(self, since: int, alert: str, status: str, *, pool: str = POOL) -> bool:
        """Whether any notification is about this alert and has this status.

        The first ``since`` notifications do not count, and neither do those that name another pool.
        """
        return any(
            (sent["labels"]["alertname"], sent["status"]) == (alert, status)
            and sent["labels"].get("pool", pool) == pool
            for sent in self.cluster.watch.notifications.received[since:]
        )


@pytest.fixture(scope="module")
def run(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A pool at zero gets a new RayCluster, runs two tasks on two groups, and returns to zero."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH; on Debian: apt-get install {' '.join(missing)}")
    cluster = ClusterWatch(
        tmp_path_factory.mktemp("watch"),
        namespace=deployment.kube.namespace,
        values=_with_operators(deployment),
    )
    with kuberay_metrics(deployment.kube):
        deployment.wait_for_zero(POOL, head=True)
        try:
            cluster.start()
            observed = Observed(deployment, cluster)
            _play(observed)
            yield observed
        finally:
            cluster.stop()


def _play(run: Observed) -> None:
    """Take the pool from zero to one group, to two, and back to zero. At first the second group has no room."""
    deployment = run.deployment
    deployment.kube.delete_clusters(POOL)
    first = deployment.submit(POOL, {"message": "watched", "steps": 400, "step_s": 0.25})
    deployment.follow(first).wait_for_step(1, timeout_s=WAKE_S)
    with deployment.kube.no_room():
        second = deployment.submit(POOL, {"message": "waits for room", "steps": 4, "step_s": 0.25})
        _wait(lambda: run.sent(0, "DaybreakGroupsMissing", "firing"), "DaybreakGroupsMissing")
    done = deployment.follow(second).wait_for_end(timeout_s=WAKE_S)
    assert done.state.value == "succeeded"
    deployment.client.cancel(first)
    deployment.wait_for_zero(POOL, head=True)


def _wait(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, timeout_s=_TIMEOUT_S, what=what, pause_s=_PAUSE_S)


def _with_operators(deployment: Deployment) -> Mapping[str, Any]:
    """The values of the installation, with the namespaces in which this cluster runs KEDA's and KubeRay's operators."""
    keda, kuberay = (deployment.kube.deployment(name).metadata.namespace for name in (KEDA, KUBERAY))
    monitoring = {**deployment.values["monitoring"], "kubeRay": {"namespace": kuberay}}
    return {**deployment.values, "monitoring": monitoring, "keda": {"namespace": keda}}


def test_the_charts_monitors_find_every_pod(run: Observed) -> None:
    """With the chart's selectors and ports, Prometheus scrapes gateways, operator, head, worker, KEDA and KubeRay."""
    found = {(series["metric"]["job"], series["metric"]["container"]) for series in run.data("up == 1")}
    namespace = run.deployment.kube.namespace
    daybreak = {("daybreak", name) for name in ("gateway", "operator", "ray-head", "ray-worker")}
    others = {(f"{namespace}/daybreak-keda", KEDA), (f"{namespace}/daybreak-kuberay", KUBERAY)}
    assert found == daybreak | others


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_kubernetes_alert_fires_in_its_fault_and_resolves_after_it(run: Observed, fault: Fault) -> None:
    """The alert fires during the fault, reaches a webhook through Alertmanager, and ends after the fault."""
    before = len(run.cluster.watch.notifications.received)
    with fault.context(run.deployment) as during:

        def all_fire() -> bool:
            during()
            return all(run.sent(before, name, "firing", pool=fault.pool) for name in fault.alerts)

        _wait(all_fire, f"{fault.alerts} to fire")
        log(f"  {', '.join(fault.alerts)} fire")
    for name in fault.alerts:
        _wait(lambda name=name: run.sent(before, name, "resolved", pool=fault.pool), f"the end of {name}")
    run.deployment.wait_for_zero(POOL, head=True)


def test_the_alert_about_a_group_without_room_ends_with_its_start(run: Observed) -> None:
    """While a second group is wanted and cannot start, the alert fires. It ends once there is room."""
    _wait(lambda: run.sent(0, "DaybreakGroupsMissing", "resolved"), "the end of DaybreakGroupsMissing")


def test_every_kubernetes_alert_has_a_fault() -> None:
    """No alert that only Kubernetes can cause is left out."""
    faults = [alert for fault in FAULTS for alert in fault.alerts]
    assert sorted([*faults, "DaybreakGroupsMissing"]) == sorted(alert.name for alert in KUBERNETES_ALERTS)


@pytest.mark.parametrize("alert", KUBERNETES_ALERTS, ids=lambda alert: alert.name)
def test_a_kubernetes_alert_has_its_metrics(run: Observed, alert: Alert) -> None:
    """Each metric of the alert exists, with the namespace of the release; otherwise the alert could never fire."""
    _make_a_failure(run)
    for metric in promql.metric_names(alert.expression):
        assert run.data(f'{metric}{{namespace="{run.deployment.kube.namespace}"}}'), metric


def test_prometheus_evaluates_every_rule_of_the_chart(run: Observed) -> None:
    """Prometheus evaluates all rules of the chart, and the same rules with shortened windows."""
    assert sorted(rule["alert"] for rule in run.cluster.chart_rules) == sorted(alert.name for alert in ALERTS)
    for rule in run.cluster.chart_rules:
        run.cluster.watch.now(rule["expr"])
    assert run.cluster.watch.unhealthy_rules() == []


def test_every_query_that_needs_kubernetes_has_data(run: Observed) -> None:
    """Queries about Ray are included, because the chart's monitor sets the names and labels of Ray's metrics."""
    _make_a_failure(run)
    left = {
        f"{dashboard.title} / {panel.title}: {expression}": expression
        for dashboard in ALL
        for panel in dashboard.panels
        for query in panel.queries
        if _needs_the_cluster(query)
        for expression in [_filled(query, run.deployment.kube.namespace)]
    }
    log(f"  {len(left)} queries")

    def all_have_data() -> bool:
        for name in [name for name, expression in left.items() if run.data(expression)]:
            del left[name]
        return not left

    with contextlib.suppress(TimeoutError):
        wait_until(all_have_data, timeout_s=30, what="data of every query")
    assert list(left) == []


def _needs_the_cluster(query: Query) -> bool:
    names = promql.metric_names(query.expression)
    of_ray = any(name.startswith("ray_") for name in names)
    # Ray exports its metrics every 10 s, so the few seconds of a short task give no rate.
    ranks = {name for name in names if name.startswith("daybreak_rank_")} - _OF_OTHER_KINDS
    of_ranks = "rate(" not in query.expression and bool(ranks)
    return query.no_data == KUBERNETES or ((of_ray or of_ranks) and not query.no_data)


def _filled(query: Query, namespace: str) -> str:
    """The query as Grafana sends it for all pools of the namespace."""
    text = query.filled(rate_interval="15s", range_="10m")
    return text.replace('namespace=~".*"', f'namespace="{namespace}"')


def _make_a_failure(run: Observed) -> None:
    """Make a step of the operator fail, unless one has failed before."""
    counted = f'daybreak_operator_failures_total{{namespace="{run.deployment.kube.namespace}"}}'
    if not run.data(counted):
        with the_spec_of_a_pool_is_unreadable(run.deployment):
            wait_until(lambda: run.data(counted), timeout_s=30, what="a failed step of the operator")
