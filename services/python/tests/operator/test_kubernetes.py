"""Tests the operator's calls of the Kubernetes API on a real API server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from kubernetes import client
from operator_cluster import install, ray_crd

from daybreak_server.adapters.kube import client as kube
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.kube.client import POOLS, KubeCluster
from daybreak_server.operator.crd.resource import PoolStatus, dump_status
from daybreak_server.ports.cluster import (
    POOL_LABEL,
    ClusterConflictError,
    ClusterRefusedError,
    ClusterUnavailableError,
    RayCluster,
)
from testkit.waiting import wait_until_async

pytestmark = pytest.mark.system
RAY = "rayclusters.daybreak-test.dev"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> str:
    """An API group whose RayClusters no KubeRay manages."""
    monkeypatch.setattr(kube, "RAY", ("daybreak-test.dev", "v1"))
    monkeypatch.setattr(kube, "DISCOVERY_S", 0.0)
    return "daybreak-test.dev"


def manifest(name: str) -> dict[str, Any]:
    """A RayCluster."""
    meta = {"name": name, "labels": {POOL_LABEL: "echo"}}
    spec = {"suspend": False, "workerGroupSpecs": [{"groupName": "ranks", "replicas": 1}]}
    return {"apiVersion": "daybreak-test.dev/v1", "kind": "RayCluster", "metadata": meta, "spec": spec}


async def test_a_kuberay_installed_later_is_noticed_and_stale_writes_conflict(
    api: client.ApiClient, namespace: str, ray: str
) -> None:
    """While the kind ``RayCluster`` is not installed, an attempt to create one is reported as a conflict.

    Once the kind is installed, each write applies only to the version that was read.
    """
    notified: list[bool] = []
    cluster = KubeCluster(api, namespace=namespace, cache=Cache(), on_kuberay=lambda: notified.append(True))
    assert (await cluster.observe("echo")).kuberay is False
    with pytest.raises(ClusterConflictError):
        await cluster.create(manifest("echo-1"))
    installed = await asyncio.to_thread(install, api, ray_crd(ray))
    try:

        async def served() -> bool:
            try:
                return (await cluster.observe("echo")).kuberay
            except ClusterUnavailableError:  # the API server takes a moment to serve a new kind
                return False

        await wait_until_async(served, 60, "KubeRay to be noticed")
        assert notified == [True]
        await cluster.create(manifest("echo-1"))
        with pytest.raises(ClusterConflictError):  # the name exists now
            await cluster.create(manifest("echo-1"))
        (stale,) = (await cluster.observe("echo")).clusters
        replicas = "/spec/workerGroupSpecs/0/replicas"
        with pytest.raises(ClusterConflictError):
            await cluster.patch(stale.name, [{"op": "test", "path": replicas, "value": 7}])
        change = {"op": "replace", "path": replicas, "value": 2}
        await cluster.patch(stale.name, [{"op": "test", "path": replicas, "value": 1}, change])
        fresh, pods = await cluster.read(stale.name)
        assert fresh is not None
        assert (fresh.replicas, pods) == (2, ())
        with pytest.raises(ClusterConflictError):
            await cluster.delete(stale.name, uid=stale.uid, resource_version=stale.resource_version)
        await cluster.delete(stale.name, uid=fresh.uid, resource_version=fresh.resource_version)
        assert (await cluster.read(stale.name))[0] is None
    finally:
        if installed:
            await asyncio.to_thread(client.ApiextensionsV1Api(api).delete_custom_resource_definition, RAY)


async def test_status_and_events_are_written_only_for_the_pool_that_was_read(
    api: client.ApiClient, namespace: str
) -> None:
    """A later pool of the same name gets no status. A repeated Event replaces the message and adds 1 to the count."""
    template = {"template": {"spec": {"containers": [{"name": "ray", "image": "none"}]}}}
    spec = {"rayCluster": {"spec": {"headGroupSpec": template, "workerGroupSpecs": [template]}}}
    body = {
        "apiVersion": "/".join(POOLS),
        "kind": "GeneratorPool",
        "metadata": {"name": "echo"},
        "spec": spec,
    }
    custom, core = client.CustomObjectsApi(api), client.CoreV1Api(api)
    custom.create_namespaced_custom_object(*POOLS, namespace, "generatorpools", {**body})
    cluster = KubeCluster(api, namespace=namespace, cache=Cache())
    await cluster.ready()
    created = await cluster.pool("echo")
    assert created is not None
    uid, status = created["metadata"]["uid"], dump_status(PoolStatus(selector="a=b", ready=3))
    await cluster.write_status("echo", uid=uid, status=status)
    assert ((await cluster.pool("echo")) or {})["status"]["ready"] == 3
    with pytest.raises(ClusterConflictError):
        await cluster.write_status("echo", uid="another", status=status)
    for message in ("once", "twice"):
        await cluster.emit("echo", uid=uid, kind="Warning", reason="Tried", message=message)
    (event,) = core.list_namespaced_event(namespace, field_selector="reason=Tried").items
    assert (event.count, event.message, event.involved_object.name) == (2, "twice", "echo")


async def test_the_token_is_read_once_and_again_after_a_refusal(
    api: client.ApiClient, namespace: str
) -> None:
    """A missing Secret is a temporary error. A Secret without the key `auth_token` is a permanent error."""
    core, calls = client.CoreV1Api(api), list[str]()
    cluster = KubeCluster(api, namespace=namespace, cache=Cache(), on_call=calls.append)
    ray_cluster = RayCluster(name="echo-1", uid="u", resource_version="1", auth_secret="ray")
    with pytest.raises(ClusterUnavailableError, match="ray"):
        await cluster.token(ray_cluster)
    secret = {"metadata": {"name": "ray"}, "data": {"auth_token": base64.b64encode(b"one\n").decode()}}
    core.create_namespaced_secret(namespace, secret)
    assert [await cluster.token(ray_cluster), await cluster.token(ray_cluster)] == ["one", "one"]
    assert len(calls) == 2
    core.patch_namespaced_secret("ray", namespace, {"stringData": {"auth_token": "two"}})
    assert await cluster.token(ray_cluster, refresh=True) == "two"
    core.patch_namespaced_secret("ray", namespace, {"data": {"auth_token": None}})
    with pytest.raises(ClusterRefusedError, match="auth_token"):
        await cluster.token(ray_cluster, refresh=True)
    assert await cluster.token(RayCluster(name="open", uid="u", resource_version="1")) is None
