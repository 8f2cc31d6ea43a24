"""Checks of ``daybreakd doctor`` for the Kubernetes cluster, if there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from daybreak_server.cli.doctor.check import Check, error, ok, version, warning
from daybreak_server.cli.doctor.serving import demand_pools
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
        "install the keda chart, then run `helm upgrade` for Daybreak to create its ScaledObjects",
    ),
    "daybreak.dev": (
        "GeneratorPools",
        "without the CRD there are no pools",
        "apply deploy/crd/generatorpools.yaml, or install the chart, which contains it",
    ),
}
"""API group → what serves it, what its absence means, and what to do if it is absent."""
POOL_KIND = "GeneratorPool"


def examine(settings: Settings) -> Iterator[Check]:
    """Check what Daybreak needs from a cluster. Outside a pod, this checks nothing unless KUBECONFIG is set."""
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
        pools = demand_pools(settings)
        if pools and "keda.sh" in found:
            yield from _triggers(pools)


def _triggers(pools: Iterable[str]) -> Iterator[Check]:
    from daybreak_server.adapters.kube.discovery import scaled_objects

    try:
        objects = scaled_objects()
    except ClusterError as exc:
        yield warning(
            "KEDA triggers",
            f"not checked: {exc}",
            "run `helm upgrade`, which allows the operator to read ScaledObjects",
        )
    else:
        yield from judge_triggers(pools, objects)


def judge_triggers(pools: Iterable[str], objects: Iterable[Mapping[str, Any]]) -> Iterator[Check]:
    """Check that KEDA scales each pool to the number of groups that the pool's requests or open sessions need."""
    triggers = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"].get("triggers", [])
        for item in objects
        if item["spec"]["scaleTargetRef"].get("kind") == POOL_KIND
    }
    for pool in pools:
        what = f"KEDA trigger of {pool}"
        lists = [str(trigger.get("metadata", {}).get("listName", "")) for trigger in triggers.get(pool, [])]
        wanted = next((name for name in lists if name.endswith(f":{{{pool}}}:wanted")), None)
        if pool not in triggers:
            meaning = "no ScaledObject scales this pool, so nothing starts a group when the pool is at zero"
            yield warning(what, meaning, "set keda.enabled, and run `helm upgrade`")
        elif wanted is None:
            read = ", ".join(filter(None, lists)) or "no list"
            meaning = f"its ScaledObject reads {read}, so KEDA sees neither requests nor sessions"
            yield error(
                what,
                meaning,
                "set pools.<name>.kind to the kind of its workload in the chart's values, and run `helm upgrade`",
            )
        else:
            yield ok(what, f"reads {wanted}")


def judge(groups: frozenset[str]) -> Iterator[Check]:
    """Check that the cluster serves the API groups that Daybreak needs."""
    for group, (name, meaning, advice) in NEEDED.items():
        if group in groups:
            yield ok(name, f"{group} is served")
        else:
            yield error(name, f"{group} is not served by this cluster; {meaning}", advice)
