"""What the chart renders, for each of the values files that it ships."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_chart import CHART, VALUES, Object, Rendered, render

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.operator.planner import render as manifests
from daybreak_server.settings.tree import Settings, load_settings

pytestmark = pytest.mark.usefixtures("helm")
every = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def pools(rendered: Rendered) -> dict[str, GeneratorPool]:
    made = {}
    for one in rendered.all("GeneratorPool"):
        made[one["metadata"]["name"]] = GeneratorPool.read(
            {**one, "metadata": {**one["metadata"], "uid": "u"}}
        )
    return made


def environment(container: Object) -> dict[str, str]:
    """A container's variables, with Kubernetes' own expansion; what is in Secrets is `secret`."""
    known: dict[str, str] = {}
    for one in container["env"]:
        text = one.get("value", "secret")
        known[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], text)
    return known


def settings_of(rendered: Rendered, container: Object, folder: Path) -> Settings:
    path = folder / "daybreak.yaml"
    path.write_text(rendered.one("ConfigMap", "daybreak-config")["data"]["daybreak.yaml"])
    return load_settings(path, environ=environment(container))


@every
def test_neither_a_raycluster_nor_a_number_of_groups_is_rendered(values: Path) -> None:
    """Helm would fight the operator over the one, and KEDA over the other."""
    rendered = render(values)
    assert not rendered.all("RayCluster")
    assert rendered.all("GeneratorPool")
    for one in rendered.all("GeneratorPool"):
        assert "replicas" not in one["spec"]
        for group in one["spec"]["rayCluster"]["spec"]["workerGroupSpecs"]:
            assert not {"replicas", "minReplicas", "maxReplicas", "numOfHosts", "groupName"} & set(group)


@every
def test_every_process_can_read_its_settings(values: Path, tmp_path: Path) -> None:
    """The file and the variables of each container make settings that the server takes, and mean the same pools."""
    rendered = render(values)
    gateway = rendered.one("Deployment", "daybreak-gateway")["spec"]["template"]["spec"]["containers"][0]
    operator = rendered.one("Deployment", "daybreak-operator")["spec"]["template"]["spec"]["containers"][0]
    for container in (gateway, operator):
        settings = settings_of(rendered, container, tmp_path)
        assert set(settings.pools) == set(pools(rendered))
        assert settings.http.host == "0.0.0.0"
    for name, pool in pools(rendered).items():
        cluster = manifests.cluster(pool, replicas=1, suspend=False)["spec"]
        for part in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
            settings = settings_of(rendered, part["template"]["spec"]["containers"][0], tmp_path)
            of = settings.pools[name]
            assert (of.workload, of.ranks, of.drain_s) == (
                pool.workload,
                pool.spec.ranks,
                pool.spec.drain_seconds,
            )


@every
def test_kedas_trigger_counts_the_live_tasks_of_its_pool(values: Path) -> None:
    """The key is the store's own name for it, the target the pool, and zero is reached only without work."""
    rendered = render(values)
    scaled = {one["metadata"]["name"]: one["spec"] for one in rendered.all("ScaledObject")}
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
        # With 0 here KEDA takes busy groups to zero when Redis does not answer it.
        assert spec["fallback"]["replicas"] >= 1
        assert spec["initialCooldownPeriod"] == spec["cooldownPeriod"]


def test_without_keda_nothing_of_it_is_rendered() -> None:
    """An object of a kind that the cluster does not know would fail the whole installation."""
    known = {one["apiVersion"] for one in render(kinds=()).objects}
    assert not any(version.startswith(("keda.sh", "monitoring", "gateway.networking")) for version in known)
    assert render(kinds=(), also={"keda": {"enabled": True}}).all("ScaledObject")
    assert not render(also={"keda": {"enabled": False}}).all("ScaledObject")


@every
def test_every_pod_keeps_to_the_restricted_level(values: Path) -> None:
    """Non-root, no privileges, a root file system that is only read, and no token where none is used."""
    for name, template in render(values).templates().items():
        spec = template["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is (name == "Deployment/daybreak-operator"), name
        assert spec["enableServiceLinks"] is False, name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            if not name.endswith("/worker"):  # a worker's follow from what a rank needs
                assert container["resources"]["requests"]["cpu"], name
                assert container["resources"]["limits"]["memory"], name


@every
def test_every_pod_may_write_where_it_must(values: Path) -> None:
    """With a read-only root, /tmp and the home folder are volumes of their own in all that run our processes."""
    for name, template in render(values).templates().items():
        if not name.startswith(("GeneratorPool", "Deployment")):
            continue
        volumes = {one["name"]: one for one in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
            for path in ("/tmp", "/home/daybreak"):
                assert "emptyDir" in volumes[mounts[path]], name


def test_only_one_operator_ever_runs() -> None:
    """Two would write the same RayCluster."""
    spec = render().one("Deployment", "daybreak-operator")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_operator_may_do_what_it_must_and_no_more() -> None:
    """One namespace; no Secret but Ray's token; no pod is changed."""
    rendered = render()
    assert not rendered.all("ClusterRole")
    (role,) = rendered.all("Role")
    may = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert may["", "pods"] == {"get", "list", "watch"}
    assert may["", "secrets"] == {"get"}
    assert {"create", "patch", "delete"} <= may["ray.io", "rayclusters"]
    assert "patch" in may["daybreak.dev", "generatorpools/status"]
    assert not {"create", "update", "patch", "delete"} & may["daybreak.dev", "generatorpools"]
    (secrets,) = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
    assert secrets["resourceNames"] == ["daybreak-ray-token"]


def test_install_tells_what_a_default_installation_asks_for() -> None:
    """docs/install.md has the sums; `video` keeps a head at rest, `echo` does not."""
    rendered = render()
    head, worker = (_pods(rendered, "video")[part] for part in ("headGroupSpec", "workerGroupSpecs"))
    at_rest = [head]
    for one in (*rendered.all("Deployment"), *rendered.all("StatefulSet")):
        at_rest += [one["spec"]["template"]] * one["spec"]["replicas"]
    page = (CHART.parents[2] / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"| **at rest** | {len(at_rest)} | {_asked(at_rest)} | 8 GiB |" in page
    assert f"| each group of `video`, at most `maxGroups` (4) | 1 | {_asked([worker])} | |" in page
    assert (
        f"| `echo`, while `helm test` uses it | 2 | {_asked(list(_pods(rendered, 'echo').values()))} | |"
        in page
    )


def _pods(rendered: Rendered, pool: str) -> dict[str, Object]:
    """The templates of a pool's head and workers."""
    spec = manifests.cluster(pools(rendered)[pool], replicas=1, suspend=False)["spec"]
    (workers,) = spec["workerGroupSpecs"]
    return {"headGroupSpec": spec["headGroupSpec"]["template"], "workerGroupSpecs": workers["template"]}


def _asked(templates: list[Object]) -> str:
    """CPUs, memory and ephemeral storage as the page writes them. A limit alone is a request too."""
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
    ("also", "renewed"),
    [
        ({"gateway": {"replicas": 5}, "operator": {"podAnnotations": {"a": "b"}}}, set()),
        ({"settings": {"http": {"heartbeat_s": 5}}}, set()),
        ({"poolDefaults": {"maxGroups": 9, "scaling": {"cooldownPeriod": 1}}}, set()),
        ({"pools": {"video": {"settings": {"checkpoint_s": 5}}}}, {"video"}),
        ({"pools": {"video": {"ranks": 2}}}, {"video"}),
        ({"image": {"tag": "next"}}, {"video", "echo"}),
        ({"artifacts": {"url": "s3://elsewhere/results"}}, {"video", "echo"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value)[:60],
)
def test_groups_are_renewed_only_when_they_must_be(also: Object, renewed: set[str]) -> None:
    """A renewal costs every group of a pool its warm model."""
    before, after = revisions(render()), revisions(render(also=also))
    assert {name for name in before if before[name] != after[name]} == renewed


def test_another_version_of_the_chart_renews_no_group(tmp_path: Path) -> None:
    """Labels with versions must not be in Ray's templates: only a change of the image is one."""
    image: dict[str, Any] = {"image": {"tag": "same"}}
    assert revisions(render(also=image)) == revisions(render(also=image, chart=next_release(tmp_path)))


def test_another_version_of_the_chart_restarts_no_redis(tmp_path: Path) -> None:
    """Nor a label with one in Redis's template: while its pod is away tasks are refused."""
    now, then = (
        render(chart=chart).one("StatefulSet", "daybreak-redis") for chart in (CHART, next_release(tmp_path))
    )
    assert now["spec"] == then["spec"]
    assert now["metadata"]["labels"] != then["metadata"]["labels"]


def next_release(folder: Path) -> Path:
    """A copy of the chart with other versions, its own and the image's."""
    copy = folder / "daybreak"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9", "appVersion": "9.9.9"}))
    return copy
