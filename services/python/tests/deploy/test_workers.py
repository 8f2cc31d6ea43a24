"""Tests of the chart's workers. A pod runs the image of a model server, and starts Daybreak's worker in this image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_chart import CHART, NAMESPACE, Object, RefusedError, Rendered, render
from deploy_network import Place, allowed

from daybreak_server.adapters.redis.registry.keys import RegistryKeys
from daybreak_server.settings.tree import Settings, load_settings

pytestmark = pytest.mark.usefixtures("helm")
VALUES = CHART / "ci" / "workers-values.yaml"
LLAMA = {"workers": {"llama": {"image": "llama:1"}}}


def deployment(rendered: Rendered, name: str) -> Object:
    return rendered.object("Deployment", f"daybreak-workers-{name}")["spec"]


def container(rendered: Rendered, name: str) -> Object:
    (found,) = deployment(rendered, name)["template"]["spec"]["containers"]
    return found


def gateway(rendered: Rendered) -> Object:
    spec = rendered.object("Deployment", "daybreak-gateway")["spec"]["template"]["spec"]
    (found,) = spec["containers"]
    return found


def secrets(container: Object) -> dict[str, tuple[str, str]]:
    """The variables that come from Secrets, each with the name and the key of its Secret."""
    return {
        item["name"]: (item["valueFrom"]["secretKeyRef"]["name"], item["valueFrom"]["secretKeyRef"]["key"])
        for item in container["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }


def settings_of(rendered: Rendered, name: str, folder: Path) -> Settings:
    path = folder / "daybreak.yaml"
    path.write_text(rendered.object("ConfigMap", f"daybreak-workers-{name}")["data"]["daybreak.yaml"])
    return load_settings(path, environ={"DAYBREAK_WORKERS__TOKEN": "secret"})


def test_a_worker_has_the_settings_of_its_values_and_time_to_drain(tmp_path: Path) -> None:
    """The kubelet kills a pod only after ``drain_s``, the time for requests, and ``stop_s``, the time for engines."""
    rendered = render(VALUES)
    found = settings_of(rendered, "vllm", tmp_path).workers
    assert (found.engines["vllm"].capacity, found.engines["vllm"].stop_s, found.idle_s) == (64, 40, 600)
    grace = deployment(rendered, "vllm")["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > found.drain_s + 40 + 10
    also = {"workerDefaults": {"drainSeconds": 300}}
    longer = render(VALUES, also=also)
    assert settings_of(longer, "vllm", tmp_path).workers.drain_s == 300
    assert deployment(longer, "vllm")["template"]["spec"]["terminationGracePeriodSeconds"] == grace + 300 - 30


def test_gateways_and_workers_have_the_same_token_from_a_secret() -> None:
    """The chart makes the Secret, unless the values name one."""
    rendered = render(VALUES)
    made = rendered.object("Secret", "daybreak-workers-token")["data"]
    assert list(made) == ["token"]
    variable = "DAYBREAK_WORKERS__TOKEN"
    both = [secrets(container(rendered, "vllm"))[variable], secrets(gateway(rendered))[variable]]
    assert both == [("daybreak-workers-token", "token")] * 2
    ours = {"workersToken": {"existingSecret": "mine", "key": "t"}}
    other = render(VALUES, also=ours)
    assert not [item for item in other.all("Secret") if item["metadata"]["name"].endswith("-workers-token")]
    both = [secrets(container(other, "vllm"))[variable], secrets(gateway(other))[variable]]
    assert both == [("mine", "t")] * 2
    assert variable in secrets(gateway(render(also=ours))), "for workers outside the cluster"
    assert variable not in secrets(gateway(render()))


def test_a_worker_has_the_name_and_the_address_of_its_pod() -> None:
    """The name keeps the workers of two pods apart."""
    found = container(render(VALUES), "llama")
    env = {item["name"]: item for item in found["env"]}
    assert env["WORKER_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["PUBLIC_URL"]["value"] == "http://$(POD_IP):7000"
    assert list(env).index("POD_IP") < list(env).index("PUBLIC_URL"), "Kubernetes expands in this order"
    assert "--manager-url=http://daybreak-gateway:8000" in found["args"]


def test_keda_scales_workers_by_what_the_models_need() -> None:
    """Helm writes no number of replicas. If it did, an upgrade would overwrite the number that KEDA has set."""
    rendered = render(VALUES)
    scaled = rendered.object("ScaledObject", "daybreak-workers-vllm")["spec"]
    assert scaled["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "daybreak-workers-vllm",
    }
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 2)
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["listName"] == RegistryKeys(prefix="daybreak").single("wanted")
    assert (trigger["metadata"]["listLength"], trigger["metadata"]["activationListLength"]) == ("1", "0")
    pool = rendered.object("ScaledObject", "video")["spec"]["triggers"][0]
    assert {**pool["metadata"], "listName": trigger["metadata"]["listName"]} == trigger["metadata"]
    assert trigger["authenticationRef"] == pool["authenticationRef"]
    assert scaled["fallback"]["replicas"] >= 1
    assert "replicas" not in deployment(rendered, "vllm")


@pytest.mark.parametrize(
    ("own", "kinds", "replicas"),
    [({}, (), 1), ({"replicas": 3}, (), 3), ({"replicas": 0}, ("keda.sh/v1alpha1",), 0)],
)
def test_without_keda_or_with_a_fixed_number_the_deployment_states_its_replicas(
    own: dict[str, Any], kinds: tuple[str, ...], replicas: int
) -> None:
    rendered = render(also={"workers": {"llama": {"image": "llama:1", **own}}}, kinds=kinds)
    assert deployment(rendered, "llama")["replicas"] == replicas
    assert "daybreak-workers-llama" not in {item["metadata"]["name"] for item in rendered.all("ScaledObject")}


def test_any_image_gets_the_worker_of_this_release() -> None:
    """The worker runs from the volume that the init container has filled."""
    spec = deployment(render(VALUES), "llama")["template"]["spec"]
    (copied,) = spec["initContainers"]
    (worker,) = spec["containers"]
    assert copied["image"] == "daybreak:0.1.0"
    assert worker["image"] == "ghcr.io/ggml-org/llama.cpp:server-b6700"
    folder = copied["command"][-1]
    mounts = [{item["mountPath"]: item["name"] for item in part["volumeMounts"]} for part in (copied, worker)]
    assert mounts[0][folder] == mounts[1][folder] == "worker"
    assert worker["command"][0] == f"{folder}/bin/daybreakd"
    assert copied["securityContext"]["readOnlyRootFilesystem"] is True


def test_values_of_workers_that_do_not_fit_are_refused() -> None:
    """Each message says what to write instead."""
    two = {"workers": {"a": {"image": "i:1"}, "b": {"image": "i:1"}}}
    refused = [
        ({"workers": {"a": {}}}, "workers.a.image is not set"),
        (two, "KEDA can scale only one of a, b"),
        (
            {"workers": {"a": {"image": "i:1", "minReplicas": 5}}},
            "minReplicas \\(5\\) is greater than maxReplicas",
        ),
        (
            {"workers": {"a": {"image": "i:1", "settings": {"drain_s": 5}}}},
            "write workers.a.drainSeconds",
        ),
        (
            {"workers": {"a": {"image": "i:1", "settings": {"token": "t"}}}},
            "write workersToken.existingSecret",
        ),
        (
            {"workerDefaults": {"settings": {"idle_s": 5}}},
            "workerDefaults.settings.idle_s cannot be set there",
        ),
        ({"settings": {"workers": {"token": "t"}}}, "write workersToken.existingSecret"),
        ({"workers": {"a_b": {"image": "i:1"}}}, "a_b"),
        ({"workers": {"a": {"image": "i:1", "gpus": 1}}}, "gpus"),
        ({"models": [{"source": "x"}]}, "alias"),
        ({"pools": {"registry": {}}}, "under a name other than registry"),
    ]
    for also, message in refused:
        with pytest.raises(RefusedError, match=message):
            render(also=also)
    render(also=two, kinds=())
    render(also={"workers": {"a": {"image": "i:1"}, "b": {"image": "i:1", "replicas": 1}}})


def places(rendered: Rendered) -> dict[str, Place]:
    def pod(name: str, template: Object) -> Place:
        return Place(name=name, namespace=NAMESPACE, labels=template["metadata"]["labels"])

    templates = rendered.templates()
    return {
        "gateway": pod("gateway", templates["Deployment/daybreak-gateway"]),
        "operator": pod("operator", templates["Deployment/daybreak-operator"]),
        "redis": pod("redis", templates["StatefulSet/daybreak-redis"]),
        "worker": pod("worker", templates["Deployment/daybreak-workers-llama"]),
        "models": pod("models", templates.get("Job/daybreak-models", {"metadata": {"labels": {}}})),
        "neighbour": Place(name="neighbour", namespace=NAMESPACE, labels={"app": "somebody-else"}),
        "keda": Place(name="keda", namespace="keda"),
        "internet": Place(name="internet", ip="203.0.113.9"),
    }


@pytest.mark.parametrize(
    "values", [(), (CHART / "ci" / "hardened-values.yaml",)], ids=["default", "hardened"]
)
def test_only_gateways_reach_a_worker_and_a_worker_reaches_only_them(values: tuple[Path, ...]) -> None:
    """By default, a worker reaches neither Redis nor the internet. A value of the chart can allow more."""
    also: dict[str, Any] = {**LLAMA, "models": [{"alias": "a", "source": "s"}]}
    rendered = render(*values, also=also)
    policies, known = rendered.all("NetworkPolicy"), places(rendered)
    ports = (80, 443, 6379, 7000, 7001, 8000, 8265, 9090)
    reached = {
        (source, target, port)
        for source in known
        for target in known
        for port in ports
        if source != target
        and {"worker", "models"} & {source, target}
        and allowed(policies, known[source], known[target], port)
    }
    assert reached == {
        ("gateway", "worker", 7000),
        ("worker", "gateway", 8000),
        ("models", "gateway", 8000),
    }
    hub = {"networkPolicy": {"workers": {"egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]}}}
    opened = render(*values, also={**also, **hub}).all("NetworkPolicy")
    assert allowed(opened, known["worker"], known["internet"], 443)
    assert not allowed(opened, known["worker"], known["internet"], 80)
    assert not allowed(opened, known["models"], known["internet"], 443)


def test_models_are_registered_by_a_job_with_the_token_of_workers() -> None:
    """The job and the gateways read the same token, which the chart makes."""
    rendered = render(VALUES)
    job = rendered.object("Job", "daybreak-models")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    (register,) = job["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value", "") for item in register["env"]}
    declared = yaml.safe_load(VALUES.read_text(encoding="utf-8"))["models"]
    assert yaml.safe_load(env["MODELS"]) == declared
    for values in ((VALUES,), ()):
        rendered = render(*values, also={"models": declared})
        token = ("daybreak-workers-token", "token")
        (register,) = rendered.object("Job", "daybreak-models")["spec"]["template"]["spec"]["containers"]
        assert secrets(register) == {"DAYBREAK_WORKERS__TOKEN": token}
        assert secrets(gateway(rendered))["DAYBREAK_WORKERS__TOKEN"] == token
        assert list(rendered.object("Secret", token[0])["data"]) == [token[1]]
    none = render(also=LLAMA)
    assert not [item for item in none.all("Job") if item["metadata"]["name"].endswith("-models")]
