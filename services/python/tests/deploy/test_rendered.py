"""Tests of the rendered chart, with each of the chart's values files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_chart import CHART, VALUES, Object, Rendered, render

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.cli.doctor.cluster import judge_triggers
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.operator.planner import render as manifests
from daybreak_server.settings.tree import Settings, load_settings

pytestmark = pytest.mark.usefixtures("helm")
every = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def pools(rendered: Rendered) -> dict[str, GeneratorPool]:
    pools_by_name = {}
    for item in rendered.all("GeneratorPool"):
        pools_by_name[item["metadata"]["name"]] = GeneratorPool.read(
            {**item, "metadata": {**item["metadata"], "uid": "u"}}
        )
    return pools_by_name


def environment(container: Object) -> dict[str, str]:
    """A container's variables, expanded as Kubernetes does. A value from a Secret or a field becomes ``secret``."""
    known: dict[str, str] = {}
    for item in container["env"]:
        text = item.get("value", "secret")
        known[item["name"]] = re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], text)
    return known


def settings_of(rendered: Rendered, container: Object, folder: Path) -> Settings:
    path = folder / "daybreak.yaml"
    path.write_text(rendered.object("ConfigMap", "daybreak-config")["data"]["daybreak.yaml"])
    return load_settings(path, environ=environment(container))


@every
def test_neither_a_raycluster_nor_a_number_of_groups_is_rendered(values: Path) -> None:
    """The operator owns the RayCluster, and KEDA owns the number of groups, so Helm must not overwrite them."""
    rendered = render(values)
    assert not rendered.all("RayCluster")
    assert rendered.all("GeneratorPool")
    for item in rendered.all("GeneratorPool"):
        assert "replicas" not in item["spec"]
        for group in item["spec"]["rayCluster"]["spec"]["workerGroupSpecs"]:
            assert not {"replicas", "minReplicas", "maxReplicas", "numOfHosts", "groupName"} & set(group)


@every
def test_every_process_can_read_its_settings(values: Path, tmp_path: Path) -> None:
    """The settings file and the environment of each container form valid settings, which contain the expected pools."""
    rendered = render(values)
    gateway = rendered.object("Deployment", "daybreak-gateway")["spec"]["template"]["spec"]["containers"][0]
    operator = rendered.object("Deployment", "daybreak-operator")["spec"]["template"]["spec"]["containers"][0]
    for container in (gateway, operator):
        settings = settings_of(rendered, container, tmp_path)
        assert set(settings.pools) == set(pools(rendered))
        assert settings.http.host == "0.0.0.0"
    for name, pool in pools(rendered).items():
        cluster = manifests.cluster(pool, replicas=1, suspend=False)["spec"]
        for part in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
            settings = settings_of(rendered, part["template"]["spec"]["containers"][0], tmp_path)
            pool_settings = settings.pools[name]
            assert (pool_settings.workload, pool_settings.ranks, pool_settings.drain_s) == (
                pool.workload,
                pool.spec.ranks,
                pool.spec.drain_seconds,
            )


@every
def test_gateways_know_what_a_group_costs_while_there_is_none(values: Path, tmp_path: Path) -> None:
    rendered = render(values)
    gateway = rendered.object("Deployment", "daybreak-gateway")["spec"]["template"]["spec"]["containers"][0]
    settings = settings_of(rendered, gateway, tmp_path)
    groups_max = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"]["maxReplicaCount"]
        for item in rendered.all("ScaledObject")
        if item["spec"]["scaleTargetRef"]["kind"] == "GeneratorPool"
    }
    for name, pool in pools(rendered).items():
        known, gpus = settings.pools[name], pool.spec.resources.gpus
        assert (known.device, known.gpus_per_rank) == (("auto", gpus) if gpus else ("cpu", 1.0))
        assert known.groups == groups_max.get(name, known.groups)


@every
def test_keda_scales_a_pool_by_its_live_tasks(values: Path) -> None:
    """The target is the pool, and the trigger reads the list of its live tasks. Only idle pools scale to zero."""
    rendered = render(values)
    scaled = {
        item["metadata"]["name"]: item["spec"]
        for item in rendered.all("ScaledObject")
        if item["spec"]["scaleTargetRef"]["kind"] == "GeneratorPool"
    }
    assert set(scaled) == set(pools(rendered))
    for name, spec in scaled.items():
        assert spec["scaleTargetRef"] == {
            "apiVersion": "daybreak.dev/v1alpha1",
            "kind": "GeneratorPool",
            "name": name,
        }
        trigger = spec["triggers"][0]
        assert trigger["metadata"]["listName"] == Keys(prefix="daybreak", pool=name).single("live")
        assert trigger["metadata"]["listLength"] == "1"
        assert spec["minReplicaCount"] == 0
        # With a fallback of 0, KEDA would scale busy groups to zero while Redis does not answer.
        assert spec["fallback"]["replicas"] >= 1
        assert spec["initialCooldownPeriod"] == spec["cooldownPeriod"]


def test_keda_scales_a_pool_that_answers_requests_by_its_demand_too() -> None:
    """The second trigger reads a list that has one entry for each group that the requests need."""
    rendered = render(CHART / "ci" / "online-values.yaml")
    triggers = {
        item["metadata"]["name"]: [trigger["metadata"]["listName"] for trigger in item["spec"]["triggers"]]
        for item in rendered.all("ScaledObject")
    }
    online = Keys(prefix="daybreak", pool="echo-serve")
    assert triggers == {
        "echo-serve": [online.single("live"), online.single("wanted")],
        "echo": [Keys(prefix="daybreak", pool="echo").single("live")],
        "video": [Keys(prefix="daybreak", pool="video").single("live")],
    }
    first, second = rendered.object("ScaledObject", "echo-serve")["spec"]["triggers"]
    assert {**first, "metadata": {**first["metadata"], "listName": online.single("wanted")}} == second
    assert second["metadata"]["listLength"] == "1"
    checks = list(judge_triggers(["echo-serve"], rendered.all("ScaledObject")))
    assert [(check.level, check.found) for check in checks] == [("ok", f"reads {online.single('wanted')}")]


def test_keda_scales_a_pool_of_sessions_by_its_open_sessions() -> None:
    pool = {"workload": "simulated-speech", "kind": "sessions", "targetLoad": 16}
    rendered = render(CHART / "ci" / "online-values.yaml", also={"pools": {"talks": pool}})
    triggers = rendered.object("ScaledObject", "talks")["spec"]["triggers"]
    keys = Keys(prefix="daybreak", pool="talks")
    assert [trigger["metadata"]["listName"] for trigger in triggers] == [
        keys.single("live"),
        keys.single("wanted"),
    ]
    assert pools(rendered)["talks"].spec.target_load == 16
    assert [check.level for check in judge_triggers(["talks"], rendered.all("ScaledObject"))] == ["ok"]


def test_the_target_load_is_that_of_the_generator_pool_alone() -> None:
    """If the target load were a setting too, each change of it would replace groups or restart gateways."""
    rendered = render(CHART / "ci" / "online-values.yaml")
    known = pools(rendered)
    assert {name: pool.spec.target_load for name, pool in known.items()} == {
        "echo-serve": 4,
        "echo": None,
        "video": None,
    }
    assert known["echo-serve"].spec.kind == "online"
    assert "target_load" not in rendered.object("ConfigMap", "daybreak-config")["data"]["daybreak.yaml"]


def test_objects_of_optional_kinds_are_rendered_only_if_the_cluster_has_the_kinds() -> None:
    """One object of a kind that the cluster lacks would make the whole installation fail."""
    known = {item["apiVersion"] for item in render(kinds=()).objects}
    assert not any(version.startswith(("keda.sh", "monitoring", "gateway.networking")) for version in known)
    assert render(kinds=(), also={"keda": {"enabled": True}}).all("ScaledObject")
    assert not render(also={"keda": {"enabled": False}}).all("ScaledObject")


@every
def test_every_pod_meets_the_restricted_pod_security_standard(values: Path) -> None:
    """Pods run without root or privileges, on a read-only root file system. Only the operator has an API token."""
    for name, template in render(values).templates().items():
        spec = template["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is (name == "Deployment/daybreak-operator"), name
        assert spec["enableServiceLinks"] is False, name
        for container in spec["containers"]:
            container_security = container["securityContext"]
            assert container_security["allowPrivilegeEscalation"] is False, name
            assert container_security["readOnlyRootFilesystem"] is True, name
            assert container_security["capabilities"] == {"drop": ["ALL"]}, name
            if not name.endswith("/worker"):  # the operator computes a worker's resources from its ranks
                assert container["resources"]["requests"]["cpu"], name
                assert container["resources"]["limits"]["memory"], name


@every
def test_every_pod_can_write_to_tmp_and_its_home(values: Path) -> None:
    """The root file system is read-only, so /tmp and the home folder are volumes in all of Daybreak's containers."""
    for name, template in render(values).templates().items():
        if not name.startswith(("GeneratorPool", "Deployment")):
            continue
        volumes = {item["name"]: item for item in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
            for path in ("/tmp", "/home/daybreak"):
                assert "emptyDir" in volumes[mounts[path]], name


def test_at_most_one_operator_runs_at_a_time() -> None:
    """Two operators would write to the same RayCluster."""
    spec = render().object("Deployment", "daybreak-operator")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_gateways_heads_and_ranks_send_traces_to_the_same_collector(tmp_path: Path) -> None:
    """A head passes its settings to ranks. Each process reads the headers from a file, which the Secret provides."""
    tracing = {"enabled": True, "endpoint": "http://otel:4318", "existingSecret": "otel"}
    rendered = render(also={"tracing": tracing})
    templates = [
        rendered.object("Deployment", "daybreak-gateway")["spec"]["template"],
        *_pods(rendered, "video").values(),
    ]
    for template in templates:
        (container,) = template["spec"]["containers"]
        found = settings_of(rendered, container, tmp_path).tracing
        assert (found.enabled, found.endpoint) == (True, "http://otel:4318")
        assert found.headers_file is not None
        mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
        volumes = {item["name"]: item for item in template["spec"]["volumes"]}
        sources = volumes[mounts[str(found.headers_file.parent)]]["projected"]["sources"]
        (items,) = [item["secret"]["items"] for item in sources if item["secret"]["name"] == "otel"]
        assert items == [{"key": "headers", "path": found.headers_file.name}]


def test_the_values_that_the_page_about_traces_shows_are_accepted(tmp_path: Path) -> None:
    """The example sends traces, and adds the name of the pod to them."""
    page = (CHART.parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
    section = page.partition("#### On Kubernetes\n")[2].partition("\n#")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    rendered = render(also={name: value for block in blocks for name, value in yaml.safe_load(block).items()})
    for template in _pods(rendered, "video").values():
        (container,) = template["spec"]["containers"]
        assert settings_of(rendered, container, tmp_path).tracing.enabled
        assert environment(container)["OTEL_RESOURCE_ATTRIBUTES"].endswith("k8s.pod.name=secret")


def test_the_operator_has_only_the_permissions_that_it_needs() -> None:
    """The role is limited to one namespace, reads no Secret except Ray's token, and never writes to pods."""
    rendered = render()
    assert not rendered.all("ClusterRole")
    (role,) = rendered.all("Role")
    verbs = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert verbs["", "pods"] == {"get", "list", "watch"}
    assert verbs["", "secrets"] == {"get"}
    assert {"create", "patch", "delete"} <= verbs["ray.io", "rayclusters"]
    assert "patch" in verbs["daybreak.dev", "generatorpools/status"]
    assert not {"create", "update", "patch", "delete"} & verbs["daybreak.dev", "generatorpools"]
    (secrets,) = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert secrets["resourceNames"] == ["daybreak-ray-token"]
    assert verbs["keda.sh", "scaledobjects"] == {"list"}


def test_the_install_page_has_the_resource_requests_of_a_default_installation() -> None:
    """The page shows sums over all pods. At zero, the pool ``video`` keeps its Ray head, and ``echo`` does not."""
    rendered = render()
    head, worker = (_pods(rendered, "video")[part] for part in ("headGroupSpec", "workerGroupSpecs"))
    idle = [head]
    for item in (*rendered.all("Deployment"), *rendered.all("StatefulSet")):
        idle += [item["spec"]["template"]] * item["spec"]["replicas"]
    page = (CHART.parents[2] / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"| **every pool at zero** | {len(idle)} | {_requests(idle)} | 8 GiB |" in page
    assert f"| each group of `video`, up to `maxGroups` (4) | 1 | {_requests([worker])} | |" in page
    assert (
        f"| `echo`, while `helm test` uses it | 2 | {_requests(list(_pods(rendered, 'echo').values()))} | |"
        in page
    )


def _pods(rendered: Rendered, pool: str) -> dict[str, Object]:
    """The templates of a pool's head and of the pods of its groups."""
    spec = manifests.cluster(pools(rendered)[pool], replicas=1, suspend=False)["spec"]
    (workers,) = spec["workerGroupSpecs"]
    return {"headGroupSpec": spec["headGroupSpec"]["template"], "workerGroupSpecs": workers["template"]}


def _requests(templates: list[Object]) -> str:
    """CPUs, memory and ephemeral storage as the page shows them. A limit without a request counts as the request."""
    sums = dict.fromkeys(("cpu", "memory", "ephemeral-storage"), 0.0)
    units = {"m": 0.001, "Mi": 1 / 1024, "Gi": 1.0}
    for template in templates:
        (container,) = template["spec"]["containers"]
        resources = container["resources"]
        for name, amount in {**resources.get("limits", {}), **resources["requests"]}.items():
            number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(amount)).groups()
            sums[name] += float(number) * units.get(unit, 1)
    cpus, memory, storage = sums.values()
    return f"{cpus:g} | {memory:.2g} GiB |" + (f" {storage:g} GiB" if storage else "")


def revisions(rendered: Rendered) -> dict[str, str]:
    return {name: names.revision(pool) for name, pool in pools(rendered).items()}


@pytest.mark.parametrize(
    ("also", "replaced"),
    [
        ({"gateway": {"replicas": 5}, "operator": {"podAnnotations": {"a": "b"}}}, set()),
        ({"settings": {"http": {"heartbeat_s": 5}}}, set()),
        ({"poolDefaults": {"maxGroups": 9, "scaling": {"cooldownPeriod": 1}}}, set()),
        ({"pools": {"video": {"settings": {"checkpoint_s": 5}}}}, {"video"}),
        ({"pools": {"video": {"settings": {"max_queued": 5, "retention_s": 60}}}}, set()),
        ({"settings": {"router": {"policy": "round_robin"}}}, set()),
        ({"pools": {"video": {"ranks": 2}}}, {"video"}),
        ({"image": {"tag": "next"}}, {"video", "echo"}),
        ({"artifacts": {"url": "s3://elsewhere/results"}}, {"video", "echo"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:60],
)
def test_only_changes_that_affect_a_rank_replace_groups(also: Object, replaced: set[str]) -> None:
    """A replacement costs every group of a pool its warm model."""
    before, after = revisions(render()), revisions(render(also=also))
    assert {name for name in before if before[name] != after[name]} == replaced


def test_another_routing_policy_replaces_no_group_of_a_pool_that_answers_requests() -> None:
    """Only gateways read the routing policy. Groups read the capacity, so a new capacity replaces groups."""
    values = CHART / "ci" / "online-values.yaml"

    def with_settings(**settings: object) -> dict[str, str]:
        return revisions(render(values, also={"pools": {"echo-serve": {"settings": settings}}}))

    before = revisions(render(values))
    assert with_settings(routing="session") == before
    assert with_settings(capacity=9)["echo-serve"] != before["echo-serve"]


def test_the_limits_of_sessions_replace_no_group() -> None:
    """Only gateways read limits such as `max_sessions`. Groups read `max_batch_size`: a new size replaces groups."""

    def with_sessions(**sessions: object) -> str:
        settings = {"sessions": sessions} if sessions else {}
        pool = {"workload": "simulated-speech", "kind": "sessions", "settings": settings}
        return revisions(render(also={"pools": {"talks": pool}}))["talks"]

    before = with_sessions()
    assert with_sessions(max_sessions=9, session_timeout_s=60) == before
    other = with_sessions(max_batch_size=9)
    assert other != before
    assert with_sessions(max_batch_size=9, max_sessions=9) == other


def test_a_new_trace_collector_replaces_groups_but_a_new_sample_ratio_does_not() -> None:
    """A group reads the endpoint when it starts. Tasks are sampled where they are submitted."""

    def traced(**tracing: object) -> dict[str, str]:
        return revisions(
            render(also={"tracing": {"enabled": True, "endpoint": "http://otel:4318", **tracing}})
        )

    off, on = revisions(render()), traced()
    assert off == revisions(render(also={"tracing": {"endpoint": "http://otel:4318"}}))
    assert all(off[name] != on[name] for name in off)
    assert on == traced(sampleRatio=0.5, maxPerSecond=3)
    other = traced(endpoint="http://other:4318")
    assert all(on[name] != other[name] for name in on)


def test_another_version_of_the_chart_replaces_no_group(tmp_path: Path) -> None:
    """Ray's templates must have no labels with versions, because any change of a template replaces groups."""
    image: dict[str, Any] = {"image": {"tag": "same"}}
    assert revisions(render(also=image)) == revisions(render(also=image, chart=next_release(tmp_path)))


def test_another_version_of_the_chart_does_not_restart_redis(tmp_path: Path) -> None:
    """Redis's template must have no label with a version. While Redis restarts, gateways refuse tasks."""
    current, following = (
        render(chart=chart).object("StatefulSet", "daybreak-redis")
        for chart in (CHART, next_release(tmp_path))
    )
    assert current["spec"] == following["spec"]
    assert current["metadata"]["labels"] != following["metadata"]["labels"]


def next_release(folder: Path) -> Path:
    """Copy the chart, and give the copy another version and appVersion."""
    copy = folder / "daybreak"
    shutil.copytree(CHART, copy)
    metadata = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**metadata, "version": "9.9.9", "appVersion": "9.9.9"}))
    return copy
