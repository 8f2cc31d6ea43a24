"""Checks of ``daybreakd doctor`` for the Kubernetes cluster, if there is one."""

from __future__ import annotations

from collections.abc import Iterator

from daybreak_server.cli.doctor.check import Check, error, ok, version, warning
from daybreak_server.ports.cluster import ClusterError, ClusterRefusedError
from daybreak_server.settings.tree import Settings, names_kubernetes

NEEDED = {
    "ray.io": (
        "KubeRay",
        "KubeRay creates the pods of groups; without it no group starts, and tasks wait",
        "install the kuberay-operator chart with its CRDs; the pools then continue by themselves",
    ),
    "keda.sh": (
        "KEDA",
        "KEDA scales pools; without it a pool keeps the number of groups that it has",
        "install the keda chart, then run `helm upgrade` for Daybreak, which creates its ScaledObjects",
    ),
    "daybreak.dev": (
        "GeneratorPools",
        "without the CRD there are no pools",
        "apply deploy/crd/generatorpools.yaml, or install the chart, which contains it",
    ),
}
"""API group → what serves it, what its absence means, and what to do."""


def examine(_settings: Settings) -> Iterator[Check]:
    """Check what Daybreak needs of a cluster. Checks nothing outside a pod if KUBECONFIG is not set."""
    if not names_kubernetes():
        return
    if version("kubernetes") is None:
        yield warning(
            "kubernetes",
            "not checked: the package `kubernetes` is not installed",
            "pip install 'daybreak-server[kubernetes]'",
        )
        return
    from daybreak_server.adapters.kube.discovery import api_groups

    try:
        found = api_groups()
    except ClusterRefusedError as exc:
        advice = (
            "only the operator's pod may ask the API server: "
            "kubectl exec deploy/daybreak-operator -- daybreakd doctor"
        )
        yield warning("kubernetes", f"KubeRay and KEDA not checked: {exc}", advice)
    except ClusterError as exc:
        yield error("kubernetes", str(exc), "check that KUBECONFIG is right and that the cluster is up")
    else:
        yield from judge(found)


def judge(groups: frozenset[str]) -> Iterator[Check]:
    """Check that the cluster serves the API groups that Daybreak needs."""
    for group, (name, meaning, advice) in NEEDED.items():
        if group in groups:
            yield ok(name, f"{group} is served")
        else:
            yield error(name, f"{group} is not served by this cluster; {meaning}", advice)
