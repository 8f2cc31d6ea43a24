"""The Kubernetes API in one namespace, in the tests' words."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from kubernetes import client, config, utils
from kubernetes.client.exceptions import ApiException

from testkit.kubernetes.waiting import wait_until

POOL_LABEL = "daybreak.dev/pool"
NODE_TYPE = "ray.io/node-type"
POOLS = ("daybreak.dev", "v1alpha1", "generatorpools")
RAY = ("ray.io", "v1", "rayclusters")
QUOTA = "e2e"
JSON_PATCH = "application/json-patch+json"
SCALED = ("keda.sh", "v1alpha1", "scaledobjects")
_OURS = f".{POOLS[0]}"


class Kube:
    """One namespace of the cluster that KUBECONFIG names."""

    def __init__(self, namespace: str) -> None:
        config.load_kube_config()
        self.namespace = namespace
        self.api = client.ApiClient()
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.autoscaling = client.AutoscalingV2Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)

    # ── the namespace ────────────────────────────────────────────────────────────────────────────────────

    def create_namespace(self, labels: Mapping[str, str]) -> None:
        meta = client.V1ObjectMeta(name=self.namespace, labels=dict(labels))
        self.core.create_namespace(client.V1Namespace(metadata=meta))

    def delete_namespace(self, *, timeout_s: float = 180) -> None:
        """And wait until it is gone with all that is in it."""
        _unless_absent(lambda: self.core.delete_namespace(self.namespace))
        wait_until(
            lambda: _unless_absent(lambda: self.core.read_namespace(self.namespace)) is None,
            timeout_s=timeout_s,
            what=f"the end of namespace {self.namespace}",
        )

    def create(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for one in objects:
            utils.create_from_dict(self.api, dict(one), namespace=self.namespace)

    def names(self) -> set[str]:
        """Of all that is in it but events, of whatever kind, as `kubectl get -o name` writes them.

        And of what it has outside of namespaces: definitions, and roles that are named after it.
        """
        kinds = _kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        lasting = ",".join(one for one in kinds if one.partition(".")[0] != "events")
        inside = _kubectl("-n", self.namespace, "get", lasting, "-o", "name").split()
        outside = _kubectl("get", "crd,clusterroles,clusterrolebindings", "-o", "name").split()
        return {*inside, *(one for one in outside if f"/{self.namespace}-" in one or one.endswith(_OURS))}

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────

    def pods(self, selector: str = "") -> list[client.V1Pod]:
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def heads(self, pool: str) -> list[client.V1Pod]:
        return self.pods(f"{POOL_LABEL}={pool},{NODE_TYPE}=head")

    def workers(self, pool: str) -> list[client.V1Pod]:
        return self.pods(f"{POOL_LABEL}={pool},{NODE_TYPE}=worker")

    def kill_processes(self, name: str) -> None:
        """SIGKILL to all that its container runs but the first: nothing is told of it, and nothing handed back."""
        command = ["kubectl", "-n", self.namespace, "exec", name, "--", "sh", "-c", "kill -9 -1"]
        subprocess.run(command, check=False, capture_output=True)

    def delete_pod(self, name: str, *, force: bool = False) -> None:
        """``force``: at once. Its processes may still hear of it, a moment before they are killed."""
        grace = {"grace_period_seconds": 0} if force else {}
        self.core.delete_namespaced_pod(name, self.namespace, **grace)

    def events(self) -> list[client.CoreV1Event]:
        return list(self.core.list_namespaced_event(self.namespace).items)

    def secret(self, name: str) -> client.V1Secret | None:
        return _unless_absent(lambda: self.core.read_namespaced_secret(name, self.namespace))

    def set_secret(self, name: str, key: str, value: str) -> str:
        """One key of it; the value before."""
        before = base64.b64decode(self.core.read_namespaced_secret(name, self.namespace).data[key]).decode()
        self.core.patch_namespaced_secret(name, self.namespace, {"stringData": {key: value}})
        return before

    def deployment(self, name: str) -> client.V1Deployment:
        """The one of that name, in whatever namespace it is."""
        every = self.apps.list_deployment_for_all_namespaces(field_selector=f"metadata.name={name}").items
        (found,) = every
        return found

    def scale(self, deployment: client.V1Deployment, replicas: int) -> None:
        meta = deployment.metadata
        patch = {"spec": {"replicas": replicas}}
        self.apps.patch_namespaced_deployment_scale(meta.name, meta.namespace, patch)

    # ── the custom kinds ─────────────────────────────────────────────────────────────────────────────────

    def pool(self, name: str) -> dict[str, Any] | None:
        group, version, plural = POOLS
        found: dict[str, Any] | None = _unless_absent(
            lambda: self.custom.get_namespaced_custom_object(group, version, self.namespace, plural, name)
        )
        return found

    def every(self, kind: tuple[str, str, str]) -> list[dict[str, Any]]:
        """All objects of a custom kind; none where the cluster does not know it."""
        group, version, plural = kind
        found = _unless_absent(
            lambda: self.custom.list_namespaced_custom_object(group, version, self.namespace, plural)
        )
        return [] if found is None else list(found["items"])

    def patch_pool(self, name: str, spec: Mapping[str, Any]) -> None:
        """As a person does with `kubectl patch --type merge`."""
        group, version, plural = POOLS
        patch = {"spec": dict(spec)}
        self.custom.patch_namespaced_custom_object(group, version, self.namespace, plural, name, patch)

    def set_image(self, pool: str, image: str) -> None:
        """Of all containers of the pool's RayCluster template."""
        group, version, plural = POOLS
        places = ["headGroupSpec", "workerGroupSpecs/0"]
        patch = [
            {
                "op": "replace",
                "path": f"/spec/rayCluster/spec/{place}/template/spec/containers/0/image",
                "value": image,
            }
            for place in places
        ]
        self.custom.patch_namespaced_custom_object(
            group, version, self.namespace, plural, pool, patch, _content_type=JSON_PATCH
        )

    def set_quota(self, *, pods: int | None) -> None:
        """So many pods may be in the namespace; ``None``: any number."""
        _unless_absent(lambda: self.core.delete_namespaced_resource_quota(QUOTA, self.namespace))
        if pods is not None:
            spec = client.V1ResourceQuotaSpec(hard={"pods": str(pods)})
            body = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name=QUOTA), spec=spec)
            self.core.create_namespaced_resource_quota(self.namespace, body)


def condition(pool: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    """A condition of a GeneratorPool; empty while there is none."""
    every = ((pool or {}).get("status") or {}).get("conditions") or []
    return next((one for one in every if one["type"] == kind), {})


def selector(deployment: client.V1Deployment) -> str:
    """Of its pods."""
    return ",".join(f"{key}={value}" for key, value in deployment.spec.selector.match_labels.items())


def ready(pod: client.V1Pod) -> bool:
    """Whether it takes traffic and is not about to go."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    every = pod.status.conditions or []
    return any(one.type == "Ready" and one.status == "True" for one in every)


def _kubectl(*arguments: str) -> str:
    done = subprocess.run(["kubectl", *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def _unless_absent(call: Any) -> Any:
    try:
        return call()
    except ApiException as exc:
        if exc.status == 404:
            return None
        raise
