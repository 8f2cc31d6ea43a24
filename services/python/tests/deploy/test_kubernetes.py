"""A real API server checks the chart, the plain manifests and bad GeneratorPools, by dry runs that write nothing.

The server is the one in ``KUBECONFIG``; `.ci/run` uses one without and then with the kinds of KEDA and others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from deploy_chart import CHART, KINDS, REPOSITORY, VALUES, Object, render
from deploy_tools import run, try_run

from daybreak_server.operator.crd.definition import NAME, definition

DEPLOY = REPOSITORY / "deploy"
FOLDERS = sorted({path.parent.name for path in DEPLOY.glob("*/*.yaml")})
"""The folders that people apply by hand."""
OF_NO_NAMESPACE = ("CustomResourceDefinition", "Namespace")


@pytest.fixture(scope="module")
def cluster() -> None:
    """A cluster with the CRD of GeneratorPool."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: nothing was tested on an API server")
    if "daybreak.dev/v1alpha1" not in run("kubectl", "api-versions").split():
        pytest.skip("the cluster has no GeneratorPool resource: kubectl apply --server-side -f deploy/crd")


@pytest.fixture(scope="module")
def same_definition(cluster: None) -> None:
    """The cluster has this tree's CRD, not an older one."""
    (wanted,) = yaml.safe_load_all((DEPLOY / "crd" / "generatorpools.yaml").read_text())
    found = yaml.safe_load(run("kubectl", "get", "customresourcedefinition", NAME, "--output", "yaml"))
    mark = "daybreak.dev/definition"
    if found["metadata"].get("annotations", {}).get(mark) != wanted["metadata"]["annotations"][mark]:
        pytest.skip("the cluster has another version of the CRD: kubectl apply --server-side -f deploy/crd")


def known() -> set[str]:
    """The kinds that the cluster has, as charts check for them: group and version, with and without the kind."""
    rows = [line.split() for line in run("kubectl", "api-resources", "--no-headers").splitlines()]
    return {row[-3] for row in rows} | {f"{row[-3]}/{row[-1]}" for row in rows}


def optional_kinds(objects: list[Object]) -> set[tuple[str, str]]:
    """The kinds of the objects that a cluster may lack."""
    groups = tuple(kind.partition("/")[0] for kind in KINDS)
    return {(item["apiVersion"], item["kind"]) for item in objects if item["apiVersion"].startswith(groups)}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_an_api_server_accepts_the_rendered_chart(values: Any) -> None:
    """With all optional kinds that this cluster has: of KEDA, Prometheus, Gateway API."""
    rendered = run(
        *("helm", "template", "daybreak", CHART, "--namespace", "default"),
        *("--dry-run=server", "--no-hooks", "--values", values),
    )
    kinds = tuple(kind for kind in KINDS if kind in known())
    requested = optional_kinds([item for item in yaml.safe_load_all(rendered) if item])
    assert requested == optional_kinds(list(render(values, kinds=kinds).objects))
    run("kubectl", "apply", "--dry-run=server", "--namespace", "default", "--filename", "-", given=rendered)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("folder", FOLDERS)
def test_an_api_server_accepts_the_plain_manifests(folder: str) -> None:
    """Unchanged except for their namespace, which need not exist for a dry run."""
    needs = {"keda": {"keda.sh/v1alpha1"}, "raycluster": {"ray.io/v1"}}.get(folder, set())
    if missing := needs - known():
        pytest.skip(f"the cluster does not know {', '.join(missing)}")
    made = "---\n".join(path.read_text() for path in sorted((DEPLOY / folder).glob("*.yaml")))
    objects = [item for item in yaml.safe_load_all(made) if item]
    for item in objects:
        if item["kind"] not in OF_NO_NAMESPACE:
            item["metadata"]["namespace"] = "default"
    # Server-side, as in deploy/README.md; conflicts with an earlier field manager do not matter here.
    options = ("--server-side", "--force-conflicts") if folder == "crd" else ()
    manifests = yaml.safe_dump_all(objects)
    run("kubectl", "apply", "--dry-run=server", *options, "--filename", "-", given=manifests)


def pool(
    name: str = "tried", *, ray: Object | None = None, worker: Object | None = None, **spec: Any
) -> Object:
    """A GeneratorPool; `ray` and `worker` go into its RayCluster and its worker group."""
    group = {"template": {"spec": {"containers": [{"name": "ray", "image": "none"}]}}}
    cluster = {"headGroupSpec": group, "workerGroupSpecs": [{**group, **(worker or {})}], **(ray or {})}
    return {
        "apiVersion": "daybreak.dev/v1alpha1",
        "kind": "GeneratorPool",
        "metadata": {"name": name},
        "spec": {"rayCluster": {"spec": cluster}, **spec},
    }


def window(begins: str, ends: str) -> Object:
    return {"from": begins, "to": ends, "groups": 1}


def rules(node: Any) -> Iterator[Object]:
    """Every CEL rule of the CRD."""
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from rules(item)


MESSAGES = {rule["message"] for rule in rules(definition())}
REFUSED = {
    "a name that begins with a digit": (pool("1st"), "begins with a letter"),
    "a name that is too long": (pool("a" * 32), "at most 31 characters"),
    "a name that is taken": (pool("api"), r"\bapi\b"),
    "ranks that hosts cannot share": (pool(ranks=3, hostsPerGroup=2), "hostsPerGroup must divide ranks"),
    "one and a half GPUs": (pool(resources={"gpus": 1.5}), "fraction of one GPU or a whole number"),
    "a window of no time": (pool(warmSchedule=[window("08:00", "08:00")]), "from and to of a window"),
    "Ray's autoscaler": (pool(ray={"enableInTreeAutoscaling": True}), "remove enableInTreeAutoscaling"),
    "a suspended cluster": (pool(ray={"suspend": False}), r"remove suspend.*spec\.idle"),
    "a head that remembers": (
        pool(ray={"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}),
        "remove gcsFaultToleranceOptions",
    ),
    **{
        f"{field} of the group": (pool(worker={field: value}), f"remove {field}.*the pool's own fields")
        for field, value in {
            "replicas": 1,
            "minReplicas": 0,
            "maxReplicas": 4,
            "numOfHosts": 2,
            "groupName": "ranks",
            "suspend": False,
        }.items()
    },
}
TAKEN = {
    "the least": pool(),
    "the longest name": pool("a" * 31),
    "ranks that hosts share": pool(ranks=8, hostsPerGroup=2, resources={"gpus": 4.0}),
    "a part of a GPU": pool(resources={"gpus": 0.5}),
    "a window over midnight": pool(warmSchedule=[window("22:00", "06:00")]),
    "no autoscaler of Ray": pool(ray={"enableInTreeAutoscaling": False}),
}


def test_each_rule_of_the_crd_has_a_pool_that_breaks_it() -> None:
    """Creating a pool can break all of them; a rule about changes would need a test that changes a pool."""
    words = [words for _, words in REFUSED.values()]
    assert [item for item in MESSAGES if not any(re.search(each, item) for each in words)] == []
    assert not any("oldSelf" in rule["rule"] for rule in rules(definition()))


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", REFUSED)
def test_an_api_server_refuses_a_bad_pool_with_our_message(case: str) -> None:
    """With the message of the only rule that it breaks."""
    bad, words = REFUSED[case]
    result = try_run("kubectl", "create", "--dry-run=server", "--filename", "-", given=yaml.safe_dump(bad))
    assert result.returncode == 1
    (broken,) = [item for item in MESSAGES if item in result.stderr]
    assert re.search(words, broken)


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", TAKEN)
def test_an_api_server_accepts_a_pool_at_the_limit_of_the_rules(case: str) -> None:
    """No rule refuses more than its message says."""
    run("kubectl", "create", "--dry-run=server", "--filename", "-", given=yaml.safe_dump(TAKEN[case]))
