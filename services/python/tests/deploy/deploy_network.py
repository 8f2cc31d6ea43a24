"""Evaluates NetworkPolicies as Kubernetes defines them: which pod may connect to which."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A pod (it has labels and a namespace), or an external address (it has only an `ip`)."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    ip: str = ""


def allowed(policies: list[Object], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether the egress rules of the source and the ingress rules of the target allow a connection."""
    return _side(policies, "egress", source, target, port, protocol) and _side(
        policies, "ingress", target, source, port, protocol
    )


def _side(policies: list[Object], direction: str, pod: Place, other: Place, port: int, protocol: str) -> bool:
    """Whether one end allows the connection. A pod that no policy of this direction selects allows everything."""
    if not pod.namespace:
        return True
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in [kind.lower() for kind in policy["spec"]["policyTypes"]]
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not selecting:
        return True
    rules = [(spec, rule) for spec in selecting for rule in spec.get(direction) or []]
    return any(_rule(rule, direction, pod.namespace, other, port, protocol) for _, rule in rules)


def _rule(rule: Object, direction: str, namespace: str, other: Place, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports and not any(
        policy["port"] <= port <= policy.get("endPort", policy["port"])
        and policy.get("protocol", "TCP") == protocol
        for policy in ports
    ):
        return False
    peers = rule.get("to" if direction == "egress" else "from")
    return not peers or any(_peer(peer, namespace, other) for peer in peers)


def _peer(peer: Object, namespace: str, other: Place) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if not other.ip or ipaddress.ip_address(other.ip) not in ipaddress.ip_network(block["cidr"]):
            return False
        return not any(
            ipaddress.ip_address(other.ip) in ipaddress.ip_network(policy)
            for policy in block.get("except", [])
        )
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace}
        if not _selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "only matchLabels is evaluated here; the chart uses nothing else"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
