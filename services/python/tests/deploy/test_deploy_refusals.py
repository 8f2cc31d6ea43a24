"""Values that are wrong are refused before anything is installed, in words that say what to write."""

from __future__ import annotations

import pytest
from deploy_chart import Object, RefusedError, render

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
        ({"pools": {"video": {"groups": 2}}}, ["/pools/video", "groups", "not allowed"]),
        ({"pools": {"video": {"ranks": 0}}}, ["/pools/video/ranks", "minimum"]),
        ({"pools": {"video": {"settings": {"checkpoint": 5}}}}, ["/settings", "checkpoint", "not allowed"]),
        ({"pools": {"video": {"settings": {"lease": {"lease_s": 0}}}}}, ["/lease/lease_s"]),
        ({"settings": {"tenant": {}}}, ["/settings", "tenant", "not allowed"]),
        ({"poolDefaults": {"idle": {"mode": "sleep"}}}, ["/idle/mode", "workers", "cluster"]),
        ({"poolDefaults": {"scaling": {"fallback": {"replicas": 0}}}}, ["/fallback/replicas", "minimum"]),
        (
            {"poolDefaults": {"warmSchedule": [{"from": "8", "to": "18:00", "groups": 1}]}},
            ["/from", "pattern"],
        ),
        ({"keda": {"enabled": "yes"}}, ["/keda/enabled", "auto"]),
    ],
    ids=str,
)
def test_the_schema_names_the_place_and_what_it_wants(also: Object, words: list[str]) -> None:
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
        ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
        ({"pools": {"video": {"ranks": 3, "hostsPerGroup": 2}}}, "hostsPerGroup (2) must divide ranks (3)"),
        ({"pools": {"video": {"minWarm": 5}}}, "minWarm (5) is more than maxGroups (4)"),
        ({"pools": {"video": {"resources": {"gpus": 1.5}}}}, "a part of one GPU or a whole number"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_each_other_are_told_what_to_write(also: Object, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        render(also=also)
    assert sentence in str(refused.value)
