"""Tests of the CRD, of what is rendered for a pool (a RayCluster, applications), and of pools' schedules and status."""

from __future__ import annotations

import re
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_samples import NOW, TEMPLATE, observed, pool, ray_cluster
from pydantic import ValidationError

from daybreak_server.adapters.kube import parse
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.definition import definition
from daybreak_server.operator.crd.resource import (
    Condition,
    Drain,
    GeneratorPool,
    PoolSpec,
    PoolStatus,
    SpecInvalidError,
    WarmWindow,
    dump_status,
)
from daybreak_server.operator.planner import diagnosis, render, warm_schedule
from daybreak_server.operator.planner.diagnosis import explain
from daybreak_server.operator.planner.plan import plan
from daybreak_server.settings.tree import load_settings

CRD = Path(__file__).parents[4] / "deploy" / "crd" / "generatorpools.yaml"
RUNBOOKS = Path(__file__).parents[4] / "docs" / "runbooks.md"
NO_FAULTS = {"HeldByTasks", "Waking", "Replacing"}
"""Reasons that the runbooks explain although they are no faults. Conditions other than `Healthy` have these reasons."""


def version() -> dict[str, Any]:
    """The CRD's only version."""
    (only,) = definition()["spec"]["versions"]
    crd_version: dict[str, Any] = only
    return crd_version


def test_the_crd_file_matches_the_models() -> None:
    """`tools/crd.py --check` shows the differences."""
    written = yaml.safe_load(CRD.read_text())
    assert written["spec"] == definition()["spec"]


def test_the_crd_has_what_hpa_and_keda_need() -> None:
    """`replicas` has a default and is never null, and the scale subresource has a selector path."""
    schema = version()["schema"]["openAPIV3Schema"]["properties"]
    replicas = schema["spec"]["properties"]["replicas"]
    assert (replicas["default"], replicas["minimum"]) == (0, 0)
    assert "nullable" not in replicas
    assert version()["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_the_schema_is_structural() -> None:
    """Kubernetes accepts no reference, no union and no node without a type."""

    def check(node: dict[str, Any], path: str) -> None:
        assert "type" in node, path
        assert not {"$ref", "anyOf", "title", "additionalItems"} & set(node), path
        for name, child in node.get("properties", {}).items():
            check(child, f"{path}.{name}")
        for name in ("items", "additionalProperties"):
            if isinstance(node.get(name), dict):
                check(node[name], f"{path}.{name}")

    check(version()["schema"]["openAPIV3Schema"], "")


def test_a_status_survives_a_round_trip() -> None:
    """If a status changed on its way to the API server and back, the operator would write it on every step."""
    written = PoolStatus(
        replicas=1,
        phase="Ready",
        conditions=(Condition(type="Ready", status="True", reason="R", last_transition_time=NOW + 0.1234),),
        drains=(Drain(group="g", since=NOW + 0.1, deadline=NOW + 45.1),),
        zero_since=NOW + 0.7,
    )
    assert PoolStatus.model_validate(dump_status(written)) == written


def test_a_pool_is_parsed_from_the_api_servers_object() -> None:
    """The object may have no status, and may have fields of a later version."""
    body = {
        "metadata": {"name": "video", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"replicas": 2, "rayCluster": TEMPLATE, "later": True},
    }
    parsed = GeneratorPool.read(body)
    assert (parsed.spec.replicas, parsed.workload, parsed.status.replicas) == (2, "video", 0)


def test_a_window_with_an_unknown_time_zone_is_refused() -> None:
    """An unknown zone is not treated as UTC."""
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        WarmWindow.model_validate({"from": "08:00", "to": "18:00", "timeZone": "Berlin", "groups": 1})


def test_time_zones_are_known_even_if_the_system_has_none() -> None:
    """A slim image may have no zoneinfo, so the package `tzdata` provides it."""
    zoneinfo.reset_tzpath(to=())
    try:
        window = {"from": "08:00", "to": "18:00", "timeZone": "Europe/Berlin", "groups": 1}
        assert WarmWindow.model_validate(window).time_zone == "Europe/Berlin"
        assert zoneinfo.ZoneInfo.no_cache("Europe/Berlin").key == "Europe/Berlin"
    finally:
        zoneinfo.reset_tzpath()


def test_every_wrong_field_is_named_by_its_path_in_the_manifest() -> None:
    """The messages of Daybreak's own checks do not begin with the prefix that pydantic adds."""
    window = {"from": "8", "to": "18:00", "timeZone": "Berlin", "groups": 1}
    spec = {"replicas": -1, "rayCluster": TEMPLATE, "warmSchedule": [window]}
    body = {"metadata": {"name": "video", "namespace": "n", "uid": "u"}, "spec": spec}
    with pytest.raises(SpecInvalidError) as refused:
        GeneratorPool.read(body)
    errors = str(refused.value).split("; ")
    assert [error.partition(":")[0] for error in errors if error.startswith("spec.")] == [
        "spec.replicas",
        "spec.warmSchedule[0].from",
        "spec.warmSchedule[0].timeZone",
    ]
    assert "spec.warmSchedule[0].timeZone: unknown time zone 'Berlin'" in errors


def test_no_pool_has_the_name_of_another_application_of_its_head() -> None:
    """Application names are unique in Ray Serve."""
    rules = [entry["rule"] for entry in version()["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]]
    others = {app["name"] for app in render.applications(pool(), 0)["applications"]} - {"video"}
    assert others == {"api"}
    assert "self.metadata.name != 'api'" in rules


def test_the_wanted_column_counts_groups_that_stay_warm() -> None:
    """`spec.replicas` is the number that KEDA wants. It may be 0 while `minWarm` keeps groups."""
    (wanted,) = [column for column in version()["additionalPrinterColumns"] if column["name"] == "Wanted"]
    assert wanted["jsonPath"] == ".status.wanted"
    video = pool(minWarm=2)
    assert dump_status(plan(observed(video, ray_cluster(video, 0))).status)["wanted"] == 2


def test_every_reason_has_its_entry_in_the_runbooks() -> None:
    """The runbooks also have no entry for a reason that does not exist."""
    source = Path(diagnosis.__file__).read_text()
    known = set(re.findall(r'reason="(\w+)"', source))
    known |= set(Reason) | {name for name, _ in diagnosis._WAITING.values()}
    assert "SpecInvalid" in known
    page = RUNBOOKS.read_text().partition("\n## Reasons\n")[2].partition("\n## ")[0]
    entries = {name for line in re.findall(r"^### (.+)$", page, re.MULTILINE) for name in line.split(", ")}
    assert entries - NO_FAULTS == known


def test_the_settings_of_the_pods_come_from_the_pools_spec() -> None:
    """The pods' environment variables are valid settings, even for a pool whose name has a hyphen."""
    video = pool(
        ranks=4,
        hostsPerGroup=2,
        drainSeconds=90,
        resources={"gpus": 1, "cpus": 2},
        model="/models/wan",
        kind="jobs",
    )
    video = video.model_copy(
        update={"name": "video-hd", "spec": video.spec.model_copy(update={"workload": "video"})}
    )
    manifest = render.cluster(video, replicas=1, suspend=False)
    (worker,) = manifest["spec"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = load_settings(environ=environ).pools["video-hd"]
    assert settings.kind == "jobs"
    assert (settings.ranks, settings.model, settings.drain_s) == (4, "/models/wan", 90)
    assert (settings.device, settings.gpus_per_rank, settings.cpus_per_rank) == ("cuda", 1, 2)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert worker["numOfHosts"] == 2


@pytest.mark.parametrize(
    ("memory", "ranks", "limit"),
    [
        ("24Gi", 4, "96Gi"),
        ("131072Mi", 8, "1048576Mi"),
        ("100M", 100, "10000M"),
        ("1.1Gi", 3, "3.3Gi"),
        ("0.5Gi", 2, "1Gi"),
        ("137438953472", 8, "1099511627776"),
    ],
)
def test_the_memory_of_a_host_is_a_quantity_however_large(memory: str, ranks: int, limit: str) -> None:
    """Kubernetes accepts an exponent or a unit, never both: a pod with `1.04858e+06Mi` would be refused."""
    video = pool(ranks=ranks, resources={"memory": memory})
    (worker,) = render.cluster(video, replicas=1, suspend=False)["spec"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == limit


@pytest.mark.parametrize(
    ("cpus", "ranks", "host", "rank"),
    [
        (1.0, 1, "1", 1.0),
        (2.0, 4, "8", 2.0),
        (0.5, 1, "1", 1.0),
        (1.5, 2, "3", 1.5),
        (0.0, 2, "1", 0.5),
        (0.5, 3, "2", 0.6666),
    ],
)
def test_the_ranks_of_a_group_leave_no_cpu_of_a_host_free(
    cpus: float, ranks: int, host: str, rank: float
) -> None:
    """A host of Ray has a whole number of CPUs. A CPU that is left free could hold ranks of a second group."""
    manifest = render.cluster(pool(ranks=ranks, resources={"cpus": cpus}), replicas=1, suspend=False)
    (worker,) = manifest["spec"]["workerGroupSpecs"]
    containers = [
        group["template"]["spec"]["containers"][0] for group in (worker, manifest["spec"]["headGroupSpec"])
    ]
    reserved = [
        float(entry["value"])
        for container in containers
        for entry in container["env"]
        if entry["name"].endswith("__CPUS_PER_RANK")
    ]
    assert (worker["rayStartParams"]["num-cpus"], reserved) == (host, [rank, rank])
    assert ranks * rank <= int(host)
    assert int(host) - ranks * rank < rank, "a rank of a second group would fit"
    assert containers[0]["resources"]["requests"]["cpu"] == f"{round(cpus * ranks * 1000)}m"


def test_values_of_the_template_take_precedence() -> None:
    """The operator sets `num-cpus`, the grace period and the device only if the template does not set them."""
    worker = {"image": "x", "env": [{"name": "DAYBREAK_POOLS__VIDEO__DEVICE", "value": "cpu"}]}
    pod_spec = {"containers": [worker], "terminationGracePeriodSeconds": 600}
    template = {
        "spec": {
            "headGroupSpec": {"rayStartParams": {"num-cpus": "2"}},
            "workerGroupSpecs": [{"template": {"spec": pod_spec}}],
        }
    }
    spec = render.cluster(pool(rayCluster=template, resources={"gpus": 1}), replicas=0, suspend=False)["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "2"
    pod = spec["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 600
    devices = [e["value"] for e in pod["containers"][0]["env"] if e["name"].endswith("__DEVICE")]
    assert devices == ["cpu"]


def test_rendering_a_manifest_does_not_change_the_template() -> None:
    """If rendering changed the template, the revision, which is computed from the template, would change."""
    video = pool()
    before = names.revision(video)
    render.cluster(video, replicas=1, suspend=False)
    assert names.revision(video) == before


def test_a_revision_changes_only_with_what_needs_new_pods() -> None:
    """Scaling, pausing and idling do not change the revision."""
    same = pool(replicas=5, paused=True, minWarm=2, idle={"mode": "cluster"})
    assert names.revision(same) == names.revision(pool())
    assert names.revision(pool(model="/other")) != names.revision(pool())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing Ray raises one
def test_ray_serve_accepts_the_applications() -> None:
    """Ray's own model validates the applications."""
    from ray.serve.schema import ServeDeploySchema

    validated = ServeDeploySchema.model_validate(render.applications(pool(), 3))
    pool_app = validated.applications[1]
    assert (pool_app.name, pool_app.external_scaler_enabled, pool_app.args["attempt"]) == ("video", True, 3)


@pytest.mark.parametrize(
    ("now", "groups"),
    [
        ("2026-11-20T07:59:59+00:00", 1),  # Friday, 08:59:59 in Berlin
        ("2026-11-20T08:00:00+00:00", 3),
        ("2026-11-20T15:59:59+00:00", 3),
        ("2026-11-20T16:00:00+00:00", 1),
        ("2026-07-17T07:00:00+00:00", 3),  # summer time
        ("2026-11-21T09:00:00+00:00", 1),  # Saturday
        ("2026-11-22T23:30:00+00:00", 2),  # the night that began on Sunday
        ("2026-11-23T01:00:00+00:00", 1),
    ],
)
def test_the_warm_floor_follows_local_time(now: str, groups: int) -> None:
    """The floor depends on the day and the time zone. A window may last past midnight."""
    from datetime import datetime

    spec = PoolSpec.model_validate(
        {
            "minWarm": 1,
            "rayCluster": TEMPLATE,
            "warmSchedule": [
                {"days": ["Fri"], "from": "09:00", "to": "17:00", "timeZone": "Europe/Berlin", "groups": 3},
                {"days": ["Sun"], "from": "22:00", "to": "01:00", "groups": 2},
            ],
        }
    )
    timestamp = datetime.fromisoformat(now).timestamp()
    assert warm_schedule.floor(spec, timestamp) == groups
    change = warm_schedule.next_change_s(spec, timestamp)
    assert change is not None
    assert warm_schedule.floor(spec, timestamp + change - 0.5) == groups


@pytest.mark.parametrize("reason", [*Reason])
def test_a_cause_keeps_its_reason_and_its_message(reason: str) -> None:
    """Words of another cause in the message do not change the reason."""
    quote = 'WRONGPASS: the model /models/wan does not exist; exceeded quota; secret "x" not found'
    explained = explain(Cause(reason=reason, message=quote))
    assert explained.reason == reason
    assert quote in explained.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=8', "QuotaExceeded"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodSecurityRefused"),
        ('admission webhook "v.kyverno.svc" denied the request', "AdmissionRefused"),
        ('MountVolume.SetUp failed for volume "s": secret "daybreak-redis" not found', "ConfigMissing"),
        ("spec.containers[0].image: Required value", "RayClusterRefused"),
    ],
)
def test_a_refusal_by_the_api_server_is_parsed_into_a_cause(text: str, reason: str) -> None:
    """The API server has no field for the cause, so one module recognises its fixed messages."""
    body = {"metadata": {"name": "v", "uid": "u", "resourceVersion": "1"}, "spec": {}}
    failed = {"type": "RayClusterReplicaFailure", "status": "True", "message": text}
    problem = parse.ray_cluster({**body, "status": {"conditions": [failed]}}).problem
    assert problem == Cause(reason=reason, message=text)
    event = {"metadata": {"name": "e"}, "message": text, "lastTimestamp": "2026-11-20T08:00:00Z"}
    known = parse.warned(event).cause
    assert (known.reason if known else "RayClusterRefused") == reason
