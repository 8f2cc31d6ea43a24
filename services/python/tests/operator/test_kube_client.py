"""Tests of the Kubernetes client with an answer that does not end, and with a CRD that is installed after the start."""

from __future__ import annotations

import asyncio

import pytest
from operator_api_stub import Behaviour, listening

from daybreak_server.adapters.kube import client as kube
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.kube.client import KubeCluster
from daybreak_server.adapters.ray.serve_rest import in_namespace
from daybreak_server.entrypoints import operator
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.ports.cluster import ClusterUnavailableError
from daybreak_server.ports.metrics import NoMeter
from daybreak_server.settings.tree import RedisSettings, Settings


async def test_a_stalled_response_body_blocks_no_loop_and_raises_the_ports_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The headers of a response come at once, but its body does not end. The loops of other pools continue."""
    monkeypatch.setattr(kube, "TIMEOUT_S", 0.5)
    with listening(Behaviour(stalls=True)) as api:
        cluster = KubeCluster(api, namespace="default", cache=Cache())
        observation = asyncio.create_task(cluster.observe("video"))
        turns = 0
        while not observation.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(ClusterUnavailableError):
            await observation
        assert turns > 5


@pytest.mark.parametrize("installed", [False, True])
def test_a_kuberay_installed_between_start_and_first_observation_is_watched(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """kopf discovers CRDs only at its start, so the operator restarts kopf."""
    behaviour = Behaviour()

    def run(sink: object, start: object, **_: object) -> None:
        behaviour.kuberay = installed

        async def observe() -> None:
            runtime = start()  # type: ignore[operator]
            await runtime.reconciler.cluster.observe("video")
            await runtime.close()

        asyncio.run(observe())

    monkeypatch.setattr(kopf_app, "run", run)
    with listening(behaviour) as api:
        restart = operator._run_round(
            Settings(redis=RedisSettings(url="redis://127.0.0.1:1/0")),
            api,
            in_namespace("default"),
            namespace="default",
            metrics=OperatorMetrics(NoMeter()),
            liveness=None,
        )
    assert restart is installed
