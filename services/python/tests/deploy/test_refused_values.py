"""Tests that Helm rejects wrong values before it installs anything, with a message that says what to write."""

from __future__ import annotations

import json

import pytest
from deploy_chart import CHART, Object, RefusedError, render

from daybreak_server.operator.crd.definition import definition

pytestmark = pytest.mark.usefixtures("helm")


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ({"gatway": {"replicas": 3}}, ["gatway", "not allowed"]),
        ({"gateway": {"replica": 3}}, ["/gateway", "replica", "not allowed"]),
        ({"gateway": {"replicas": "two"}}, ["/gateway/replicas", "string", "integer"]),
        ({"gateway": {"resources": {"requests": {"cpu": "a lot"}}}}, ["/requests/cpu", "pattern"]),
        ({"artifacts": {"url": "http://bucket"}}, ["/artifacts/url", "pattern"]),
        ({"redis": {"appendfsync": "no"}}, ["/redis/appendfsync", "everysec", "always"]),
        ({"image": {"digest": "1234"}}, ["/image/digest", "pattern"]),
        ({"pools": {"Video": {}}}, ["/pools", "Video"]),
        ({"pools": {"api": {}}}, ["/pools/api", "under a name other than api"]),
        ({"pools": {"video": {"groups": 2}}}, ["/pools/video", "groups", "not allowed"]),
        ({"pools": {"video": {"ranks": 0}}}, ["/pools/video/ranks", "minimum"]),
        ({"pools": {"video": {"resources": {"memory": "500m"}}}}, ["/resources/memory", "pattern"]),
        ({"pools": {"video": {"resources": {"memory": 4096}}}}, ["/resources/memory", "number", "string"]),
        ({"pools": {"video": {"settings": {"checkpoint": 5}}}}, ["/settings", "checkpoint", "not allowed"]),
        ({"pools": {"video": {"settings": {"lease": {"lease_s": 0}}}}}, ["/lease/lease_s"]),
        ({"settings": {"tenant": {}}}, ["/settings", "tenant", "not allowed"]),
        ({"poolDefaults": {"idle": {"mode": "sleep"}}}, ["/idle/mode", "workers", "cluster"]),
        ({"poolDefaults": {"scaling": {"fallback": {"replicas": 0}}}}, ["/fallback/replicas", "minimum"]),
        (
            {"poolDefaults": {"warmSchedule": [{"from": "8", "to": "18:00", "groups": 1}]}},
            ["/from", "pattern"],
        ),
        ({"tracing": {"endpoint": "otel:4318"}}, ["/tracing/endpoint", "pattern"]),
        ({"tracing": {"sampleRatio": 2}}, ["/tracing/sampleRatio", "maximum"]),
        ({"keda": {"enabled": "yes"}}, ["/keda/enabled", "auto"]),
    ],
    ids=str,
)
def test_a_schema_error_has_the_path_and_the_accepted_values(also: Object, words: list[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        render(also=also)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("also", "sentence"),
    [
        ({"artifacts": {"url": ""}}, "Write --set artifacts.url=s3://bucket/prefix"),
        ({"artifacts": {"url": "file:///results"}}, "must share a volume"),
        ({"redis": {"enabled": False}}, "redis.external names no server"),
        ({"redis": {"external": {"host": "redis.example.com"}}}, "set redis.enabled=false"),
        (
            {"redis": {"enabled": False, "external": {"host": "h", "username": "u"}}},
            "name its Secret in redis.external.existingSecret",
        ),
        (
            {"redis": {"enabled": False, "external": {"host": "h", "tls": {"caSecret": "ca"}}}},
            "set redis.external.tls.enabled=true",
        ),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.hosts"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
        ({"tracing": {"enabled": True}}, "tracing.enabled needs tracing.endpoint"),
        ({"tracing": {"endpoint": "http://otel:4318/v1/traces/"}}, "ends in /v1/traces"),
        ({"pools": {"video": {"ranks": 3, "hostsPerGroup": 2}}}, "hostsPerGroup (2) must divide ranks (3)"),
        ({"pools": {"video": {"targetLoad": 4}}}, "targetLoad (4) is only for pools that answer requests"),
        (
            {"pools": {"video": {"kind": "sessions", "ranks": 2}}},
            "ranks (2) must be 1: a group that holds sessions",
        ),
        ({"pools": {"video": {"minWarm": 5}}}, "minWarm (5) is greater than maxGroups (4)"),
        ({"pools": {"video": {"resources": {"gpus": 1.5}}}}, "a fraction of one GPU or a whole number"),
    ],
    ids=str,
)
def test_conflicting_values_are_rejected_with_what_to_write(also: Object, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        render(also=also)
    assert sentence in str(refused.value)


SET_BY_OTHER_VALUES: list[tuple[str, object, str]] = [
    ("pools", {"video": {"checkpoint_s": 5}}, "pools.<pool>.settings"),
    ("http.host", "::", "every address"),
    ("http.port", 9000, "gateway.service.port"),
    ("operator.namespace", "other", "has no permissions in any other"),
    ("operator.host", "::", "every address"),
    ("operator.liveness_port", 1, "8080"),
    ("operator.metrics_port", 1, "9090"),
    ("redis.url", "redis://r", "redis.external"),
    ("redis.prefix", "other", "redis.prefix"),
    ("redis.sentinels", ["s:1"], "redis.external.sentinel.addresses"),
    ("redis.sentinel_master", "m", "redis.external.sentinel.master"),
    ("redis.sentinel_password", "p", "redis.external.sentinel.existingSecret"),
    ("redis.wait_replicas", 0, "redis.external.waitReplicas"),
    ("redis.ca_file", "/ca", "redis.external.tls.caSecret"),
    ("redis.cert_file", "/c", "redis.external.tls.clientSecret"),
    ("redis.key_file", "/k", "redis.external.tls.clientSecret"),
    ("artifacts.url", "s3://b/p", "artifacts.url"),
    ("artifacts.s3.endpoint_url", "http://s3", "artifacts.s3.endpointUrl"),
    ("artifacts.s3.public_endpoint_url", "http://s3", "artifacts.s3.publicEndpointUrl"),
    ("artifacts.s3.region", "r", "artifacts.s3.region"),
    ("artifacts.s3.path_style", False, "artifacts.s3.pathStyle"),
    ("artifacts.s3.presign", False, "artifacts.s3.presign"),
    ("tracing.enabled", True, "tracing.enabled"),
    ("tracing.endpoint", "http://otel:4318", "tracing.endpoint"),
    ("tracing.sample_ratio", 1, "tracing.sampleRatio"),
    ("tracing.max_per_s", 1, "tracing.maxPerSecond"),
    ("tracing.headers_file", "/headers", "tracing.existingSecret"),
]
SET_BY_VALUES_OF_A_POOL: list[tuple[str, object, str]] = [
    ("workload", "echo", "workload"),
    ("kind", "online", "kind"),
    ("model", "/model", "model"),
    ("ranks", 2, "ranks"),
    ("target_load", 2, "targetLoad"),
    ("groups", 2, "maxGroups"),
    ("drain_s", 0, "drainSeconds"),
    ("device", "cpu", "resources.gpus"),
    ("cpus_per_rank", 2, "resources.cpus"),
    ("gpus_per_rank", 1, "resources.gpus"),
]


def _at(path: str, value: object) -> Object:
    tree = value
    for part in reversed(path.split(".")):
        tree = {part: tree}
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize(
    ("path", "value", "instead"),
    [
        *((f"settings.{path}", value, instead) for path, value, instead in SET_BY_OTHER_VALUES),
        *(
            (f"pools.video.settings.{key}", value, f"pools.video.{name}")
            for key, value, name in SET_BY_VALUES_OF_A_POOL
        ),
        ("pools.video.settings.ports", "9000-9010", "the policies open"),
        ("poolDefaults.settings.ranks", 2, "poolDefaults.ranks"),
        ("poolDefaults.settings.workload", "echo", "pools.<pool>.workload"),
    ],
    ids=str,
)
def test_a_setting_that_the_chart_derives_from_a_value_is_rejected_and_the_value_named(
    path: str, value: object, instead: str
) -> None:
    """The chart renders ports, policies and triggers from its values. The operator sets a group's settings in the
    group's pods.

    If the chart also accepted a setting for the same thing, the value and the setting could contradict each other.
    """
    with pytest.raises(RefusedError) as refused:
        render(also=_at(path, value))
    before, separator, advice = str(refused.value).partition(f"\n{path} cannot be set there: ")
    assert separator, before
    assert instead in advice


def test_the_memory_of_a_rank_has_the_same_pattern_in_chart_and_crd() -> None:
    """If the patterns differed, Helm could accept a value that the API server refuses in the middle of an install."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    (version,) = definition()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    pattern = spec["resources"]["properties"]["memory"]["pattern"]
    assert schema["properties"]["poolDefaults"]["properties"]["resources"]["properties"]["memory"] == {
        "type": "string",
        "pattern": pattern,
    }
