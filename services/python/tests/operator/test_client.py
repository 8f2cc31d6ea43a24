"""What the operator hears of Kubernetes, where an answer comes late or a kind comes between two questions."""

from __future__ import annotations

import asyncio

import pytest
from operator_api import Lists, listening
from prometheus_client import CollectorRegistry

from daybreak_server.adapters.kube import client as kube
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.kube.client import KubeCluster
from daybreak_server.adapters.ray.serve_rest import in_namespace
from daybreak_server.entrypoints import operator
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.ports.cluster import ClusterUnavailableError
from daybreak_server.settings.tree import RedisSettings, Settings


async def test_a_body_that_stalls_holds_no_loop_up_and_is_told_in_the_ports_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The head of an answer may come at once and its body never: another pool's loop goes on meanwhile."""
    monkeypatch.setattr(kube, "TIMEOUT_S", 0.5)
    with listening(Lists(stalls=True)) as api:
        cluster = KubeCluster(api, namespace="default", cache=Cache())
        look = asyncio.create_task(cluster.look("video"))
        turns = 0
        while not look.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(ClusterUnavailableError):
            await look
        assert turns > 5


@pytest.mark.parametrize("comes", [False, True])
def test_a_kuberay_that_comes_between_the_start_and_the_first_look_is_watched(
    monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    """kopf has looked for its kinds by then, and looks no more: the operator begins anew."""
    lists = Lists()

    def run(heard: object, start: object, **_: object) -> None:
        lists.kuberay = comes

        async def look() -> None:
            work = start()  # type: ignore[operator]
            await work.reconciler.cluster.look("video")
            await work.close()

        asyncio.run(look())

    monkeypatch.setattr(kopf_app, "run", run)
    with listening(lists) as api:
        again = operator._once(
            Settings(redis=RedisSettings(url="redis://127.0.0.1:1/0")),  # nobody asks it
            api,
            in_namespace("default"),
            namespace="default",
            metrics=OperatorMetrics(CollectorRegistry()),
            liveness=None,
        )
    assert again is comes
