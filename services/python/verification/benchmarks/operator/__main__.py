"""Measures the operator at scale, and writes ``docs/figures/k8s-scale.json``.

``python -m verification.benchmarks.operator [--quick] [--pools N] [--groups N]``

Needs `kwok` on PATH, and a KUBECONFIG of a cluster with KubeRay. The run may load that cluster to its limits.
The operator is the real one, as a local process; nodes, kubelets and Ray are simulated. At the end, the run deletes
everything that it created, except the CRD.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from daybreak_server.adapters.kube.client import JSON_PATCH, POOLS
from daybreak_server.adapters.kube.login import connect
from daybreak_server.local.free_ports import free_port
from daybreak_server.operator.crd.definition import definition
from daybreak_server.operator.crd.resource import PLURAL
from daybreak_server.ports.cluster import API_GROUP, API_VERSION
from testkit.kubernetes.waiting import wait_until
from testkit.log import log
from verification.benchmarks.operator import rows
from verification.benchmarks.operator.heads import Heads
from verification.benchmarks.operator.nodes import PLACE, KwokMissingError, nodes
from verification.benchmarks.operator.rows import Change, Idle, Size
from verification.benchmarks.operator.subject import ACTIONS, RECONCILED, Operator
from verification.benchmarks.operator.watching import Observed, Watching
from verification.benchmarks.queue.server import BenchServer
from verification.results import FOLDER, Report, Row

ABOUT = (
    "The API server, the scheduler and KubeRay are real. kwok simulates the nodes, and the benchmark simulates Ray's "
    "heads and Daybreak's groups, so that the figures show the operator alone. All pools change at once. All processes "
    "share the machine's cores. In the first three rows, the figure is the time until the change has arrived "
    "everywhere: in the status of each pool, and in the Serve application on the Ray head of each pool. The baseline "
    "is the time until the last pod has changed."
)
WAIT_S = 1800.0
IDLE_S, QUICK_IDLE_S = 330.0, 30.0


class Testbed:
    """The pools in the namespace of the run, and their observed state."""

    def __init__(self, api: client.ApiClient, size: Size, namespace: str, heads: Heads) -> None:
        self.size, self.namespace, self.heads, self.observed = size, namespace, heads, Observed()
        self._custom = client.CustomObjectsApi(api)
        self.names = [f"pool-{at:03}" for at in range(size.pools)]

    def make(self) -> None:
        """Create all pools, at zero."""
        for name in self.names:
            body = {
                "apiVersion": f"{API_GROUP}/{API_VERSION}",
                "kind": "GeneratorPool",
                "metadata": {"name": name},
                "spec": _spec(self.size.hosts),
            }
            self._custom.create_namespaced_custom_object(*POOLS, self.namespace, PLURAL, body)

    def scale(self, groups: int) -> None:
        """Request ``groups`` groups for every pool, as KEDA does."""
        for name in self.names:
            self._custom.patch_namespaced_custom_object(
                *POOLS,
                self.namespace,
                PLURAL,
                name,
                [{"op": "replace", "path": "/spec/replicas", "value": groups}],
                _content_type=JSON_PATCH,
            )

    def measure_change(self, operator: Operator, begin: Callable[[], None], groups: int) -> Change:
        """Begin a change, and measure it until every pool has ``groups`` groups."""
        pods = self.size.pools * (1 + groups * self.size.hosts)
        cpu, calls, began = operator.cpu_s, operator.calls, time.monotonic()
        begin()
        logged_at = began

        def reached() -> float | None:
            nonlocal logged_at
            if time.monotonic() - logged_at > 15:
                logged_at = time.monotonic()
                log(
                    f"  {len(self.observed.running):,} of {pods:,} pods run; operator {operator.memory_mib:.0f} MiB"
                )
            wanted = {"phase": "Ready" if groups else "Zero", "ready": groups, "wanted": groups}
            status_at, deployed_at = (
                self.observed.pools_are(self.size.pools, **wanted),
                self.heads.deployed_on(self.size.pools),
            )
            all_run = len(self.observed.running) == len(self.observed.pods) == pods
            return max(status_at, deployed_at) if status_at and deployed_at and all_run else None

        status_at = wait_until(
            reached, timeout_s=WAIT_S, what=f"{pods:,} pods and all pools at {groups}", pause_s=0.2
        )
        change = Change(
            pods_s=self.observed.pods_changed_at - began,
            pools_s=status_at - began,
            cpu_s=operator.cpu_s - cpu,
            calls=operator.calls - calls,
        )
        log(f"all pools at {groups}: {change}")
        return change


def main() -> int:
    """Measure, print and save. Missed targets do not change the exit code, which is 2 if `kwok` is missing."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.operator", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="use 10 pools, and do not save the report")
    parser.add_argument("--pools", type=int, default=200)
    parser.add_argument("--groups", type=int, default=12, help="groups of each pool, each of two pods")
    options = parser.parse_args()
    size = Size(pools=10 if options.quick else options.pools, groups=options.groups, hosts=2)
    report = Report(name="k8s-scale", title="The operator at scale", about=ABOUT)
    try:
        measure(report, size, idle_s=QUICK_IDLE_S if options.quick else IDLE_S)
    except KwokMissingError as exc:
        print(exc, file=sys.stderr)
        return 2
    log(f"\n{report.table()}")
    if not options.quick:
        log(f"saved {report.save(FOLDER)}")
    return 0


def measure(report: Report, size: Size, *, idle_s: float) -> None:
    """Measure all rows."""
    api, _ = connect()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-scale-")))
        server = stack.enter_context(BenchServer(folder / "valkey"))
        heads = Heads(server.url, ranks=size.hosts)
        stack.callback(heads.close)
        stack.enter_context(nodes(api, size.pods, folder / "kwok.log"))
        namespace = stack.enter_context(_namespace(api))
        bench, watching = Testbed(api, size, namespace, heads), Watching(api, namespace)
        stack.callback(watching.close)

        def pod(kind: str, body: Any) -> None:
            heads.pod(body, gone=kind == "DELETED")
            bench.observed.pod(kind, body)

        watching.pools(bench.observed.pool)
        watching.pods(pod)

        def begin() -> Operator:
            return Operator(
                namespace=namespace,
                redis=server.url,
                heads=heads.url,
                port=free_port(),
                log=folder / "operator.log",
            )

        log(f"{size}, in namespace {namespace}")
        operator = begin()
        try:
            wait_until(operator.metrics, timeout_s=60, what="the operator")
            empty = operator.memory_mib
            created = bench.measure_change(operator, bench.make, 0)
            raised = bench.measure_change(operator, lambda: bench.scale(size.groups), size.groups)
            idle = _measure_idle(operator, idle_s)
            again, acted, peak_mib = [], 0.0, 0.0
            for _ in range(2):
                operator.stop()
                operator = begin()
                again.append(_reconciled_all(operator, size.pools))
                acted += sum(operator.metrics().get(ACTIONS, []))
                peak_mib = max(peak_mib, operator.peak_memory_mib)
            lowered = bench.measure_change(operator, lambda: bench.scale(0), 0)
        except BaseException:
            log((folder / "operator.log").read_text(errors="replace")[-4000:])
            raise
        finally:
            operator.stop()
    for row in (
        *_rows(size, created, raised, lowered, idle, empty),
        *rows.restarts(size, again, acted, peak_mib),
    ):
        report.add(row)


def _rows(
    size: Size, created: Change, raised: Change, lowered: Change, idle: Idle, empty_mib: float
) -> Iterator[Row]:
    pools, groups = size.pools, size.groups
    yield from rows.change_rows(
        f"Create {pools:,} pools: until every head runs and has its Serve application", created, pools
    )
    yield from rows.change_rows(
        f"Scale {pools:,} pools from 0 to {groups} groups ({size.pods:,} pods): until every group is ready",
        raised,
        pools,
    )
    yield from rows.change_rows(
        f"Scale {pools:,} pools from {groups} groups to 0: until every pool is at zero", lowered, pools
    )
    yield from rows.idle_rows(size, idle, empty_mib)


def _measure_idle(operator: Operator, for_s: float) -> Idle:
    time.sleep(15)
    cpu, calls = operator.cpu_s, operator.calls
    time.sleep(for_s)
    idle = Idle(
        for_s=for_s,
        calls_an_hour=(operator.calls - calls) * 3600 / for_s,
        cores=(operator.cpu_s - cpu) / for_s,
        memory_mib=operator.memory_mib,
    )
    log(f"at rest: {idle}")
    return idle


def _reconciled_all(operator: Operator, pools: int) -> float:
    def reconciled() -> float | None:
        times = operator.metrics().get(RECONCILED, [])
        return max(times) - operator.began if len(times) == pools else None

    elapsed_s = wait_until(reconciled, timeout_s=300, what="a reconcile of every pool", pause_s=0.5)
    log(f"a new operator has reconciled every pool after {elapsed_s:.1f} s")
    return float(elapsed_s or 0)


@contextmanager
def _namespace(api: client.ApiClient) -> Iterator[str]:
    """Create a namespace for the run, and delete it at the end. Install the CRD if it is missing; it stays."""
    core, name = client.CoreV1Api(api), f"daybreak-scale-{secrets.token_hex(3)}"
    try:
        client.ApiextensionsV1Api(api).create_custom_resource_definition(definition())
    except ApiException as exc:
        if exc.status != 409:
            raise
    time.sleep(2)
    core.create_namespace({"metadata": {"name": name}})
    wait_until(
        lambda: core.list_namespaced_service_account(name).items,
        timeout_s=60,
        what="the service account of the namespace",
    )
    try:
        yield name
    finally:
        log("deleting everything …")
        core.delete_namespace(name)
        wait_until(
            lambda: name not in {item.metadata.name for item in core.list_namespace().items},
            timeout_s=900,
            what="the end of the namespace",
        )


def _spec(hosts: int) -> dict[str, Any]:
    def template() -> dict[str, Any]:
        return {"spec": {**PLACE, "containers": [{"name": "ray", "image": "played"}]}}

    ray = {"headGroupSpec": {"template": template()}, "workerGroupSpecs": [{"template": template()}]}
    return {
        "replicas": 0,
        "workload": "echo",
        "ranks": hosts,
        "hostsPerGroup": hosts,
        "drainSeconds": 5,
        "rayCluster": {"spec": ray},
    }


if __name__ == "__main__":
    sys.exit(main())
