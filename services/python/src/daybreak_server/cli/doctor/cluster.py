"""What ``daybreakd doctor`` says of the Kubernetes around it, where there is one."""

from __future__ import annotations

from collections.abc import Iterator

from daybreak_server.cli.doctor.checks import Check, error, ok, version, warning
from daybreak_server.ports.cluster import ClusterError, ClusterRefusedError
from daybreak_server.settings.tree import Settings, names_kubernetes

NEEDED = {
    "ray.io": (
        "KubeRay",
        "it makes the pods of groups: without it no group starts, and tasks wait",
        "install the kuberay-operator chart (with its CRDs); the pools go on by themselves",
    ),
    "keda.sh": (
        "KEDA",
        "it wakes pools: without it a pool stays at the groups that it has",
        "install the keda chart, then `helm upgrade` Daybreak, which makes its ScaledObjects",
    ),
    "daybreak.dev": (
        "GeneratorPools",
        "the kind is not known: there are no pools to keep",
        "apply deploy/crd/generatorpools.yaml, or install the chart, which brings it",
    ),
}
"""By API group: who serves it, what its absence means, what to do."""


def examine(_settings: Settings) -> Iterator[Check]:
    """What Daybreak needs of a cluster; nothing where this is no pod and KUBECONFIG is not set."""
    if not names_kubernetes():
        return
    if version("kubernetes") is None:
        yield warning("kubernetes", "was not looked at", "pip install 'daybreak-server[kubernetes]'")
        return
    from daybreak_server.adapters.kube.discovery import api_groups

    try:
        found = api_groups()
    except ClusterRefusedError as exc:
        advice = "only the operator's pod has an account here: run it there (kubectl exec deploy/daybreak-operator)"
        yield warning("kubernetes", f"KubeRay and KEDA were not looked for: {exc}", advice)
    except ClusterError as exc:
        yield error("kubernetes", str(exc), "is KUBECONFIG right, and is the cluster up?")
    else:
        yield from judge(found)


def judge(groups: frozenset[str]) -> Iterator[Check]:
    """What to think of a cluster that serves these API groups."""
    for group, (name, meaning, advice) in NEEDED.items():
        if group in groups:
            yield ok(name, f"{group} is served")
        else:
            yield error(name, f"{group} is not served by this cluster; {meaning}", advice)
