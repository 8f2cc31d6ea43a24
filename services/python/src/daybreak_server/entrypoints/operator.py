"""``daybreakd operator``: builds the operator from its parts and runs it, in a pod or on a developer's machine.

The operator cannot watch KubeRay's kinds before they exist. So it runs in rounds: when KubeRay appears in the cluster,
the round ends, and the next one also watches KubeRay's kinds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

from kubernetes import client
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from daybreak_server import wiring
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.kube.client import KubeCluster
from daybreak_server.adapters.kube.login import connect
from daybreak_server.adapters.ray.serve_rest import Address, ServeRest, in_namespace
from daybreak_server.observability import catalogue
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.ports.cluster import ClusterError
from daybreak_server.ports.metrics import Exporter
from daybreak_server.settings.address_format import url_of
from daybreak_server.settings.tree import Settings

_log = logging.getLogger(__name__)


def run_operator(settings: Settings, *, heads: Callable[[str], Address] = in_namespace) -> int:
    """Reconcile the pools of one namespace until SIGTERM.

    :param heads: Given the namespace, returns a function that finds the address of a RayCluster's head.
    :returns: 0, or 1 if the cluster's API server could not be used at the beginning of a round.
    """
    log_to_stderr(settings.log)
    options = settings.operator
    try:
        api, home = connect()
        namespace = options.namespace or home
        asyncio.run(KubeCluster(api, namespace=namespace, cache=Cache()).ready())
    except ClusterError as exc:
        return _cannot_start(exc)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = OperatorMetrics(PrometheusMeter(catalogue.exported_by(Exporter.OPERATOR), registry))
    if options.metrics_port:
        start_http_server(options.metrics_port, options.host, registry)
    liveness = f"{url_of(options.host, options.liveness_port)}/healthz" if options.liveness_port else None
    _log.info("reconciling the GeneratorPools of namespace %s", namespace)
    address = heads(namespace)
    try:
        while _run_round(settings, api, address, namespace=namespace, metrics=metrics, liveness=liveness):
            _log.info("KubeRay is installed now; restarting the watches to include its kinds")
    except ClusterError as exc:
        return _cannot_start(exc)
    return 0


def _cannot_start(exc: ClusterError) -> int:
    sys.stderr.write(f"daybreakd: {exc}\n")
    return 1


def _run_round(
    settings: Settings,
    api: client.ApiClient,
    address: Address,
    *,
    namespace: str,
    metrics: OperatorMetrics,
    liveness: str | None,
) -> bool:
    """Run until SIGTERM, or until KubeRay appears. :returns: whether KubeRay has appeared."""
    kuberay_found, cache = asyncio.Event(), Cache()
    kube = KubeCluster(
        api, namespace=namespace, cache=cache, on_kuberay=kuberay_found.set, on_call=metrics.record_call
    )
    asyncio.run(kube.discover_kuberay())

    def start() -> kopf_app.Runtime:
        store = wiring.build_store(settings)
        serve = ServeRest(address=address, token=kube.token)
        reconciler = Reconciler(kube, serve, store, kube.pool, metrics)
        return kopf_app.Runtime(reconciler=reconciler, close=store.close)

    kopf_app.run(cache, start, namespace=namespace, liveness=liveness, stop=kuberay_found)
    return kuberay_found.is_set()
