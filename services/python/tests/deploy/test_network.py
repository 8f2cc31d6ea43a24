"""Tests that the chart's NetworkPolicies allow exactly the necessary connections.

The tests evaluate the rendered rules, because many networks, such as the test cluster's, accept policies but do not
enforce them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from deploy_chart import CHART, NAMESPACE, REPOSITORY, Object, Rendered, render
from deploy_network import Place, allowed

from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.operator.planner import render as manifests

pytestmark = pytest.mark.usefixtures("helm")
HARDENED = CHART / "ci" / "hardened-values.yaml"
PORTS = (22, 53, 443, 4318, 6379, 8000, 8076, 8080, 8265, 9090, 10001, 16443, 52365, 30123)
"""Ports of Daybreak and Ray, and some unused ones."""


def places(rendered: Rendered) -> dict[str, Place]:
    """The release's pods with their labels, and other peers."""
    places = {}
    names = {
        "gateway": "Deployment/daybreak-gateway",
        "operator": "Deployment/daybreak-operator",
        "redis": "StatefulSet/daybreak-redis",
        "test": "Pod/daybreak-test",
        "pre-pull": "DaemonSet/daybreak-pre-pull",
    }
    templates = rendered.templates()
    for name in [name for name, template in names.items() if template in templates]:
        labels = templates[names[name]]["metadata"]["labels"]
        places[name] = Place(name=name, labels=labels, namespace=NAMESPACE)
    for item in rendered.all("GeneratorPool"):
        pool = GeneratorPool.read({**item, "metadata": {**item["metadata"], "uid": "u"}})
        spec = manifests.cluster(pool, replicas=1, suspend=False)["spec"]
        for part, group in (("head", spec["headGroupSpec"]), ("rank", spec["workerGroupSpecs"][0])):
            name = f"{pool.name} {part}"
            labels = group["template"]["metadata"]["labels"]
            places[name] = Place(name=name, labels=labels, namespace=NAMESPACE)
    others = [
        Place(name="keda", namespace="keda"),
        Place(name="ingress", namespace="ingress-nginx"),
        Place(name="prometheus", namespace="monitoring"),
        Place(name="collector", namespace="observability"),
        Place(name="dns", namespace="kube-system"),
        Place(name="neighbour", namespace=NAMESPACE, labels={"app": "somebody-else"}),
        Place(name="stranger", namespace="elsewhere"),
        Place(name="s3", ip="10.20.3.4"),
        Place(name="api server", ip="10.96.0.1"),
        Place(name="internet", ip="203.0.113.9"),
    ]
    return {**places, **{item.name: item for item in others}}


def matrix(rendered: Rendered) -> set[tuple[str, str, int]]:
    """All connections that the rules allow and that begin or end at one of the release's pods."""
    policies = rendered.all("NetworkPolicy")
    known = places(rendered)
    ours = {name for name, item in known.items() if item.labels.get("app.kubernetes.io/part-of")}
    return {
        (source, target, port)
        for source in known
        for target in known
        for port in PORTS
        if source != target
        and ours & {source, target}
        and allowed(policies, known[source], known[target], port)
    }


def test_with_named_peers_only_these_connections_are_possible() -> None:
    """The test tries every pair and port. A pod that needs no connection gets none."""
    rendered = render(HARDENED, also={"prePull": {"enabled": True}})
    assert "pre-pull" in places(rendered)
    expected = {
        *((who, "redis", 6379) for who in ("gateway", "operator", "keda")),
        *((who, "dns", 53) for who in ("gateway", "operator", "test")),
        ("gateway", "s3", 443),
        ("gateway", "collector", 4318),
        ("ingress", "gateway", 8000),
        ("test", "gateway", 8000),
        ("prometheus", "operator", 9090),
        ("prometheus", "gateway", 8000),
        ("operator", "api server", 443),
        ("operator", "api server", 16443),
    }
    for pool in ("video", "echo"):
        head, rank = f"{pool} head", f"{pool} rank"
        expected |= {(item, other, port) for item, other in ((head, rank), (rank, head)) for port in PORTS}
        expected.add(("operator", head, 8265))
        for item in (head, rank):
            expected |= {
                (item, "redis", 6379),
                (item, "s3", 443),
                (item, "collector", 4318),
                (item, "dns", 53),
                ("prometheus", item, 8080),
            }
            # One policy covers heads and ranks, so it also allows this port on ranks, which do not listen there.
            expected.add(("operator", item, 8265))
    assert matrix(rendered) == expected


def test_by_default_rays_ports_are_open_only_inside_the_pool() -> None:
    """Anyone who connects to Ray can run code there, so other pools, the gateway and neighbours may not connect."""
    rendered = render()
    inside = {
        (source, target, port) for source, target, port in matrix(rendered) if target.startswith("video ")
    }
    assert {source for source, _, port in inside} == {"video head", "video rank", "operator"}
    assert {port for source, _, port in inside if source == "operator"} == {8265}


def test_gateways_reach_the_groups_that_answer_requests_and_only_at_their_ports() -> None:
    """The open ports are the ports in the pool's settings."""
    online = {"pools": {"answers": {"kind": "online", "workload": "echo-serve"}}}
    rendered = render(also=online)
    policies, known = rendered.all("NetworkPolicy"), places(rendered)
    files = [config["data"] for config in rendered.all("ConfigMap")]
    named = [
        yaml.safe_load(text)["pools"]["answers"]["ports"]
        for data in files
        for name, text in data.items()
        if name.endswith(".yaml") and "answers" in text
    ]
    (ports,) = set(named)
    first, last = map(int, ports.split("-"))
    gateway, rank = known["gateway"], known["answers rank"]
    assert [allowed(policies, gateway, rank, port) for port in (first, last)] == [True, True]
    assert not any(allowed(policies, gateway, rank, port) for port in (*PORTS, first - 1, last + 1))
    assert not any(
        allowed(policies, known[who], rank, first) for who in ("operator", "video rank", "stranger")
    )
    assert not allowed(policies, gateway, known["video rank"], first)


def test_by_default_every_pod_reaches_the_gateway_but_only_clients_of_redis_reach_redis() -> None:
    """The API is open to all pods. Redis accepts only Daybreak's processes and KEDA."""
    allowed_now = matrix(render())
    assert {source for source, target, _ in allowed_now if target == "redis"} == {
        *("gateway", "operator", "keda", "video head", "video rank", "echo head", "echo rank")
    }
    assert {port for _, target, port in allowed_now if target == "redis"} == {6379}
    assert {"stranger", "ingress", "neighbour"} <= {
        source for source, target, port in allowed_now if (target, port) == ("gateway", 8000)
    }
    assert {port for _, target, port in allowed_now if target == "gateway"} == {8000}


def test_an_external_redis_and_its_sentinels_can_be_reached() -> None:
    """Daybreak's pods may connect to Redis and to the Sentinels only on the ports that are set for them."""
    tls = render(CHART / "ci" / "external-redis-values.yaml").all("NetworkPolicy")
    sentinel = render(CHART / "ci" / "sentinel-values.yaml").all("NetworkPolicy")
    known = places(render())
    for who in ("gateway", "operator", "video rank"):

        def reaches(policies: list[Object], port: int, who: str = who) -> bool:
            return allowed(policies, known[who], known["internet"], port)

        assert reaches(tls, 6380)
        assert not reaches(tls, 6379)
        assert reaches(sentinel, 26379)
        assert reaches(sentinel, 6379)
        assert not reaches(sentinel, 26380)


@pytest.mark.parametrize(
    ("s3", "port"),
    [({}, 443), ({"endpointUrl": "http://s3.other.svc:7070"}, 7070), ({"endpointUrl": "http://minio"}, 80)],
)
def test_the_port_of_the_artifact_store_follows_its_address(s3: Object, port: int) -> None:
    """The value ``networkPolicy.artifacts.ports`` overrides the port of the address."""
    also = {"artifacts": {"s3": s3}}
    base = CHART / "ci" / "cluster-idle-values.yaml"
    policies = render(base, also=also).all("NetworkPolicy")
    known = places(render())
    assert allowed(policies, known["video rank"], known["internet"], port)
    other = {**also, "networkPolicy": {"artifacts": {"ports": [9000]}}}
    policies = render(base, also=other).all("NetworkPolicy")
    assert allowed(policies, known["video rank"], known["internet"], 9000)
    assert not allowed(policies, known["video rank"], known["internet"], port)


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://otel.observability.svc:4318", 4318),
        ("https://otlp.example.com/tenant", 443),
        ("http://[fd00::9]", 80),
        ("http://[fd00::9]:4318", 4318),
    ],
)
def test_the_port_of_the_collector_follows_its_address(endpoint: str, port: int) -> None:
    """The value ``networkPolicy.tracing.ports`` overrides the port of the address. Without tracing, no port is open."""
    tracing = {"enabled": True, "endpoint": endpoint}
    known = places(render())

    def reaches(who: str, at: int, **also: object) -> bool:
        policies = render(also={"artifacts": {"s3": {"endpointUrl": "http://s3:7070"}}, **also})
        return allowed(policies.all("NetworkPolicy"), known[who], known["internet"], at)

    for who in ("gateway", "video head", "video rank"):
        assert not reaches(who, port)
        assert reaches(who, port, tracing=tracing)
        ports = {"tracing": {"ports": [9411]}}
        assert reaches(who, 9411, tracing=tracing, networkPolicy=ports)
        assert not reaches(who, port, tracing=tracing, networkPolicy=ports)


def test_the_plain_manifests_have_the_same_rules() -> None:
    """deploy/raycluster has the chart's rules, but none for an operator."""
    text = Path(REPOSITORY / "deploy" / "raycluster" / "10-daybreak.yaml").read_text()
    policies = [item for item in yaml.safe_load_all(text) if item["kind"] == "NetworkPolicy"]
    cluster_text = Path(REPOSITORY / "deploy" / "raycluster" / "20-raycluster.yaml").read_text()
    (cluster,) = [item for item in yaml.safe_load_all(cluster_text) if item["kind"] == "RayCluster"]
    spec = cluster["spec"]
    head, rank = (
        Place(name=name, namespace="daybreak", labels=part["template"]["metadata"]["labels"])
        for name, part in (("head", spec["headGroupSpec"]), ("rank", spec["workerGroupSpecs"][0]))
    )
    stranger = Place(name="stranger", namespace="daybreak")
    assert allowed(policies, rank, head, 6379)
    assert not allowed(policies, stranger, head, 6379)
    assert not allowed(policies, stranger, head, 8265)
