"""The calls of the Kubernetes API that tests make, in one namespace."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
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
        """Delete the namespace and wait until it is gone."""
        _unless_absent(lambda: self.core.delete_namespace(self.namespace))
        wait_until(
            lambda: _unless_absent(lambda: self.core.read_namespace(self.namespace)) is None,
            timeout_s=timeout_s,
            what=f"the end of namespace {self.namespace}",
        )

    def create(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for manifest in objects:
            utils.create_from_dict(self.api, dict(manifest), namespace=self.namespace)

    def resource_names(self) -> set[str]:
        """The names of all objects in the namespace except Events, as `kubectl get -o name` prints them.

        The set also has Daybreak's cluster-wide objects: its CRDs, and the ClusterRoles and ClusterRoleBindings whose
        names begin with the namespace's name.
        """
        kinds = _kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        listed_kinds = ",".join(kind for kind in kinds if kind.partition(".")[0] != "events")
        namespaced = _kubectl("-n", self.namespace, "get", listed_kinds, "-o", "name").split()
        cluster_wide = _kubectl("get", "crd,clusterroles,clusterrolebindings", "-o", "name").split()
        ours = (name for name in cluster_wide if f"/{self.namespace}-" in name or name.endswith(_OURS))
        return {*namespaced, *ours}

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────

    def pods(self, selector: str = "") -> list[client.V1Pod]:
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def heads(self, pool: str) -> list[client.V1Pod]:
        return self.pods(f"{POOL_LABEL}={pool},{NODE_TYPE}=head")

    def group_pods(self, pool: str) -> list[client.V1Pod]:
        """The pods of the pool's groups. KubeRay calls these pods workers."""
        return self.pods(f"{POOL_LABEL}={pool},{NODE_TYPE}=worker")

    def phase(self, pod: str) -> str:
        """The phase of a pod: ``Pending``, ``Running``, ``Succeeded``, …"""
        return str(self.core.read_namespaced_pod(pod, self.namespace).status.phase)

    def log(self, pod: str, container: str) -> str:
        """What `kubectl logs` prints for the container."""
        return str(self.core.read_namespaced_pod_log(pod, self.namespace, container=container))

    def kill_processes(self, name: str) -> None:
        """Kill all processes of a pod's container except the first, so that no process can report or release a task."""
        command = ["kubectl", "-n", self.namespace, "exec", name, "--", "sh", "-c", "kill -9 -1"]
        subprocess.run(command, check=False, capture_output=True)

    def signal(self, pod: str, program: str, name: str) -> None:
        """Send a signal, such as ``STOP``, to all processes in the pod whose command line contains ``program``.

        The pod need not have ``ps``.
        """
        pattern = f"[{program[0]}]{program[1:]}"  # so that the pattern does not match the shell itself
        script = (
            'for process in /proc/[0-9]*; do if tr "\\0" " " < "$process/cmdline" | grep -q "$1"; then '
            'kill -s "$2" "${process#/proc/}" && found=yes; fi; done 2>/dev/null; test -n "$found"'
        )
        _kubectl("-n", self.namespace, "exec", pod, "--", "sh", "-c", script, "sh", pattern, name)

    def delete_pod(self, name: str, *, force: bool = False) -> None:
        """Delete a pod; with ``force``, without a grace period, so that SIGKILL follows SIGTERM at once."""
        grace = {"grace_period_seconds": 0} if force else {}
        self.core.delete_namespaced_pod(name, self.namespace, **grace)

    def events(self) -> list[client.CoreV1Event]:
        return list(self.core.list_namespaced_event(self.namespace).items)

    def secret(self, name: str) -> client.V1Secret | None:
        return _unless_absent(lambda: self.core.read_namespaced_secret(name, self.namespace))

    def set_secret(self, name: str, key: str, value: str) -> str:
        """Set one key of a Secret. Returns its previous value."""
        before = base64.b64decode(self.core.read_namespaced_secret(name, self.namespace).data[key]).decode()
        self.core.patch_namespaced_secret(name, self.namespace, {"stringData": {key: value}})
        return before

    def deployment(self, name: str) -> client.V1Deployment:
        """The Deployment with this name, such as KEDA's, in any namespace. The cluster must have exactly one."""
        (deployment,) = self.apps.list_deployment_for_all_namespaces(
            field_selector=f"metadata.name={name}"
        ).items
        return deployment

    def scale(self, deployment: client.V1Deployment, replicas: int) -> None:
        meta = deployment.metadata
        patch = {"spec": {"replicas": replicas}}
        self.apps.patch_namespaced_deployment_scale(meta.name, meta.namespace, patch)

    # ── the custom kinds ─────────────────────────────────────────────────────────────────────────────────

    def pool(self, name: str) -> dict[str, Any] | None:
        api_group, version, plural = POOLS
        body: dict[str, Any] | None = _unless_absent(
            lambda: self.custom.get_namespaced_custom_object(api_group, version, self.namespace, plural, name)
        )
        return body

    def custom_objects(self, kind: tuple[str, str, str]) -> list[dict[str, Any]]:
        """All objects of a custom kind; empty if the cluster does not know the kind."""
        api_group, version, plural = kind
        response = _unless_absent(
            lambda: self.custom.list_namespaced_custom_object(api_group, version, self.namespace, plural)
        )
        return [] if response is None else list(response["items"])

    def patch_pool(self, name: str, spec: Mapping[str, Any]) -> None:
        """Change the pool's spec like `kubectl patch --type merge`."""
        api_group, version, plural = POOLS
        patch = {"spec": dict(spec)}
        self.custom.patch_namespaced_custom_object(api_group, version, self.namespace, plural, name, patch)

    def touch_pool(self, name: str) -> None:
        """Change an annotation of the pool, so that the operator reconciles the pool again. No other field changes."""
        annotations = {"daybreak.dev/touched": str(time.time_ns())}
        patch = {"metadata": {"annotations": annotations}}
        self.custom.patch_namespaced_custom_object(*POOLS[:2], self.namespace, POOLS[2], name, patch)

    def patch_scaled_object(self, name: str, patch: Mapping[str, Any]) -> None:
        """Change a pool's ScaledObject like `kubectl patch --type merge`."""
        self.custom.patch_namespaced_custom_object(*SCALED[:2], self.namespace, SCALED[2], name, dict(patch))

    def delete_clusters(self, pool: str) -> None:
        """Delete the RayClusters of a pool. The operator creates a new one."""
        api_group, version, plural = RAY
        self.custom.delete_collection_namespaced_custom_object(
            api_group, version, self.namespace, plural, label_selector=f"{POOL_LABEL}={pool}"
        )

    def set_image(self, pool: str, image: str) -> None:
        """In the pool's RayCluster template, set the image of the first container of the head and of the group pods."""
        api_group, version, plural = POOLS
        pod_templates = ["headGroupSpec/template", "workerGroupSpecs/0/template"]
        patch = [
            {
                "op": "replace",
                "path": f"/spec/rayCluster/spec/{pod_template}/spec/containers/0/image",
                "value": image,
            }
            for pod_template in pod_templates
        ]
        self.custom.patch_namespaced_custom_object(
            api_group, version, self.namespace, plural, pool, patch, _content_type=JSON_PATCH
        )

    @contextlib.contextmanager
    def no_room(self) -> Iterator[None]:
        """No pod can be created in the namespace during this context. Pods that exist keep running.

        The quota is zero. If it were the present number of pods, the end of a terminating pod would make room.
        """
        spec = client.V1ResourceQuotaSpec(hard={"pods": "0"})
        body = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name=QUOTA), spec=spec)
        self.core.create_namespaced_resource_quota(self.namespace, body)
        try:
            yield
        finally:
            _unless_absent(lambda: self.core.delete_namespaced_resource_quota(QUOTA, self.namespace))


def condition(pool: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    """The condition of this kind in a GeneratorPool's status; empty if there is none."""
    conditions = ((pool or {}).get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def selector(deployment: client.V1Deployment) -> str:
    """The label selector of the Deployment's pods."""
    return ",".join(f"{key}={value}" for key, value in deployment.spec.selector.match_labels.items())


def ready(pod: client.V1Pod) -> bool:
    """Whether the pod is ready and not terminating."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    conditions = pod.status.conditions or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _kubectl(*arguments: str) -> str:
    result = subprocess.run(["kubectl", *arguments], text=True, capture_output=True, check=False)
    assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr.strip()}"
    return result.stdout


def _unless_absent(call: Any) -> Any:
    try:
        return call()
    except ApiException as exc:
        if exc.status == 404:
            return None
        raise
