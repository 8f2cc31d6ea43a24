"""``daybreakd operator``: the operator's parts put together, in a pod or on somebody's machine."""

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
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.ports.cluster import ClusterError
from daybreak_server.settings.addresses import url_of
from daybreak_server.settings.tree import Settings

_log = logging.getLogger(__name__)


def run_operator(settings: Settings, *, heads: Callable[[str], Address] = in_namespace) -> int:
    """Keep the pools of one namespace until SIGTERM; 0 when it ended in order, 1 when it could not begin.

    ``heads``: of a namespace, where its Ray heads answer; other only where they are played.
    """
    log_to_stderr()
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    of = settings.operator
    try:
        api, home = connect()
        namespace = of.namespace or home
        asyncio.run(KubeCluster(api, namespace=namespace, cache=Cache()).ready())
    except ClusterError as exc:
        return _cannot_begin(exc)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = OperatorMetrics(registry)
    if of.metrics_port:
        start_http_server(of.metrics_port, of.host, registry)
    liveness = f"{url_of(of.host, of.liveness_port)}/healthz" if of.liveness_port else None
    _log.info("keeping the GeneratorPools of namespace %s", namespace)
    address = heads(namespace)
    try:
        while _once(settings, api, address, namespace=namespace, metrics=metrics, liveness=liveness):
            _log.info("KubeRay is there now: beginning anew, with its kinds")
    except ClusterError as exc:
        return _cannot_begin(exc)
    return 0


def _cannot_begin(exc: ClusterError) -> int:
    sys.stderr.write(f"daybreakd: {exc}\n")
    return 1


def _once(
    settings: Settings,
    api: client.ApiClient,
    address: Address,
    *,
    namespace: str,
    metrics: OperatorMetrics,
    liveness: str | None,
) -> bool:
    """One life; whether it ended because KubeRay has come, whose kinds could not be watched before."""
    come, cache = asyncio.Event(), Cache()
    kube = KubeCluster(api, namespace=namespace, cache=cache, on_kuberay=come.set, on_call=metrics.called)
    asyncio.run(kube.discover_kuberay())

    def start() -> kopf_app.Runtime:
        store = wiring.build_store(settings)
        serve = ServeRest(address=address, token=kube.token)
        reconciler = Reconciler(kube, serve, store, kube.pool, metrics)
        return kopf_app.Runtime(reconciler=reconciler, close=store.close)

    kopf_app.run(cache, start, namespace=namespace, liveness=liveness, stop=come)
    return come.is_set()
