"""The Kubernetes cluster of ``KUBECONFIG``. If this variable is not set, the tests that need a cluster are skipped.

Each test uses a new namespace. Missing CRDs are installed before the tests and removed after them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from daybreak_server.adapters.kube.login import connect
from daybreak_server.operator.crd.definition import NAME, definition
from testkit.waiting import wait_until


def ray_crd(group: str) -> dict[str, Any]:
    """A CRD for RayClusters that accepts any fields."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": schema,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"rayclusters.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "RayCluster", "plural": "rayclusters", "singular": "raycluster"},
            "versions": [version],
        },
    }


def install(api: client.ApiClient, crd: dict[str, Any]) -> bool:
    """Install a CRD and wait until it is served. :returns: whether it was missing."""
    crds, name = client.ApiextensionsV1Api(api), crd["metadata"]["name"]
    try:
        crds.create_custom_resource_definition(crd)
        was_missing = True
    except ApiException as exc:
        if exc.status != 409:
            raise
        was_missing = False

    spec = crd["spec"]
    resource = spec["group"], spec["versions"][0]["name"], spec["names"]["plural"]

    def served() -> bool:
        try:  # an "Established" CRD may not be served yet: the API server answers 404, then 429
            client.CustomObjectsApi(api).list_cluster_custom_object(*resource, limit=1)
        except ApiException as exc:
            if exc.status not in (404, 429, 503):
                raise
            return False
        return True

    wait_until(served, 60, f"{name} to be served")
    return was_missing


@pytest.fixture(scope="session")
def api() -> Iterator[client.ApiClient]:
    """An API client of a cluster with the CRDs of GeneratorPool and RayCluster."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set, so there is no Kubernetes cluster to test the operator on")
    api_client, _ = connect()
    crds = (definition(), ray_crd("ray.io"))
    installed = [crd["metadata"]["name"] for crd in crds if install(api_client, crd)]
    assert set(installed) <= {NAME, "rayclusters.ray.io"}
    yield api_client
    for name in installed:
        client.ApiextensionsV1Api(api_client).delete_custom_resource_definition(name)


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    """A new namespace for the test."""
    core, name = client.CoreV1Api(api), f"daybreak-operator-{secrets.token_hex(3)}"
    core.create_namespace({"metadata": {"name": name}})
    wait_until(lambda: core.list_namespaced_service_account(name).items, 60, "the service account")
    yield name
    core.delete_namespace(name)
