"""Prometheus' scrape configuration from ServiceMonitors and PodMonitors, as the Prometheus operator makes it.

A wrong selector, port or label in a monitor gives the same wrong result as with the Prometheus operator, whose rules
are in its ``pkg/prometheus/promcfg.go``. A field that this module does not know, in a monitor's spec or in its
endpoints, is an error.

The targets come from the files that :mod:`~testkit.kubernetes.discovery` writes. They are scraped through the API
server's proxy, so pods need not be reachable from this machine. The label ``instance`` is the pod's own address, as
without the proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from testkit.kubernetes.discovery import Discovery, sanitized

Rule = dict[str, Any]
"""A relabelling rule, in the form in which Prometheus reads it."""
_SPEC = {"endpoints", "jobLabel", "namespaceSelector", "podMetricsEndpoints", "podTargetLabels", "selector"}
_ENDPOINT = {"honorLabels", "interval", "metricRelabelings", "path", "port", "portNumber", "relabelings"}
_RULE = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def scrape_configs(
    monitors: Iterable[Mapping[str, Any]], *, discovery: Discovery, proxy: str, interval: str
) -> list[dict[str, Any]]:
    """A configuration for each endpoint of each monitor.

    :param discovery: where the targets are.
    :param proxy: the URL of ``kubectl proxy``.
    :param interval: the time between two scrapes, and the timeout of a scrape. The monitor's own interval is ignored.
    """
    return [
        _scrape_config(monitor, endpoint, number, discovery=discovery, proxy=proxy, interval=interval)
        for monitor in monitors
        for number, endpoint in enumerate(_endpoints(monitor))
    ]


def job_name(monitor: Mapping[str, Any], number: int = 0) -> str:
    """The ``job_name`` of an endpoint's configuration. Prometheus shows it as the name of the scrape pool."""
    meta, kind = monitor["metadata"], monitor["kind"]
    return f"{kind[0].lower()}{kind[1:]}/{meta['namespace']}/{meta['name']}/{number}"


def namespaces(monitor: Mapping[str, Any]) -> list[str]:
    """The namespaces in which the monitor looks for targets."""
    own = monitor["metadata"]["namespace"]
    return list(monitor["spec"].get("namespaceSelector", {}).get("matchNames", [own]))


def _endpoints(monitor: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = monitor["spec"]
    return list(spec["endpoints"] if monitor["kind"] == "ServiceMonitor" else spec["podMetricsEndpoints"])


def _scrape_config(
    monitor: Mapping[str, Any],
    endpoint: Mapping[str, Any],
    number: int,
    *,
    discovery: Discovery,
    proxy: str,
    interval: str,
) -> dict[str, Any]:
    spec, of_services = monitor["spec"], monitor["kind"] == "ServiceMonitor"
    unknown = (set(spec) - _SPEC) | (set(endpoint) - _ENDPOINT)
    if unknown:
        raise NotImplementedError(f"{job_name(monitor)}: {', '.join(sorted(unknown))}")
    files = discovery.services if of_services else discovery.pods
    return {
        "job_name": job_name(monitor, number),
        "honor_labels": endpoint.get("honorLabels", False),
        "metrics_path": endpoint.get("path", "/metrics"),
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "file_sd_configs": [{"files": [str(files)], "refresh_interval": interval}],
        "relabel_configs": [
            {
                "source_labels": ["__meta_kubernetes_namespace"],
                "regex": "|".join(namespaces(monitor)),
                "action": "keep",
            },
            {
                "source_labels": ["__meta_kubernetes_pod_phase"],
                "regex": "(Failed|Succeeded)",
                "action": "drop",
            },
            *_selected(spec["selector"], "service" if of_services else "pod"),
            _has_port(endpoint, of_services=of_services),
            *_own_labels(monitor, endpoint),
            *map(_rule, endpoint.get("relabelings", ())),
            *_through(proxy),
        ],
        "metric_relabel_configs": [*map(_rule, endpoint.get("metricRelabelings", ()))],
    }


def _selected(selector: Mapping[str, Any], kind: str) -> list[Rule]:
    """Keep targets whose pod or Service has the labels."""
    wanted = {key: [value] for key, value in selector.get("matchLabels", {}).items()}
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] != "In":
            raise NotImplementedError(f"the operator {expression['operator']} of a selector")
        wanted[expression["key"]] = expression["values"]
    return [
        {
            "source_labels": [
                f"__meta_kubernetes_{kind}_label_{sanitized(key)}",
                f"__meta_kubernetes_{kind}_labelpresent_{sanitized(key)}",
            ],
            "regex": f"({'|'.join(values)});true",
            "action": "keep",
        }
        for key, values in wanted.items()
    ]


def _has_port(endpoint: Mapping[str, Any], *, of_services: bool) -> Rule:
    """Keep the target of this port. A pod's port counts only if the container declares it."""
    if of_services:
        label, value = "__meta_kubernetes_endpointslice_port_name", endpoint["port"]
    elif "port" in endpoint:
        label, value = "__meta_kubernetes_pod_container_port_name", endpoint["port"]
    else:
        label, value = "__meta_kubernetes_pod_container_port_number", endpoint["portNumber"]
    return {"source_labels": [label], "regex": str(value), "action": "keep"}


def _own_labels(monitor: Mapping[str, Any], endpoint: Mapping[str, Any]) -> list[Rule]:
    """The labels that the Prometheus operator adds."""
    meta, spec, of_services = monitor["metadata"], monitor["spec"], monitor["kind"] == "ServiceMonitor"
    copied = {
        "__meta_kubernetes_namespace": "namespace",
        "__meta_kubernetes_pod_container_name": "container",
        "__meta_kubernetes_pod_name": "pod",
        **({"__meta_kubernetes_service_name": "service"} if of_services else {}),
    }
    rules = [{"source_labels": [label], "target_label": target} for label, target in copied.items()]
    rules += [_from_label("pod", label, sanitized(label)) for label in spec.get("podTargetLabels", ())]
    if of_services:
        rules.append({"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"})
    else:
        rules.append({"target_label": "job", "replacement": f"{meta['namespace']}/{meta['name']}"})
    if "jobLabel" in spec:
        rules.append(_from_label("service" if of_services else "pod", spec["jobLabel"], "job"))
    if "port" in endpoint:
        rules.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return rules


def _from_label(kind: str, label: str, target: str) -> Rule:
    source = f"__meta_kubernetes_{kind}_label_{sanitized(label)}"
    return {"source_labels": [source], "regex": "(.+)", "target_label": target}


def _rule(rule: Mapping[str, Any]) -> Rule:
    return {_RULE.get(key, key): value for key, value in rule.items()}


def _through(proxy: str) -> list[Rule]:
    """Reach the pod through the API server, and keep its address as the label ``instance``."""
    target = ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name", "__address__", "__metrics_path__"]
    return [
        {"source_labels": ["__address__"], "target_label": "instance"},
        {
            "source_labels": target,
            "regex": r"(.+);(.+);.+:(\d+);(.+)",
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy$4",
        },
        {"target_label": "__address__", "replacement": proxy.partition("://")[2]},
    ]
