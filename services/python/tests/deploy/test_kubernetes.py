"""What a real API server says of the chart, the plain manifests and bad GeneratorPools: dry runs, nothing is written.

The server is the one that ``KUBECONFIG`` names; `.ci/run` names one without and then with the kinds of other people.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from deploy_chart import CHART, KINDS, REPOSITORY, VALUES, Object, render
from deploy_tools import ask, run

from daybreak_server.operator.crd.definition import NAME, definition

DEPLOY = REPOSITORY / "deploy"
FOLDERS = sorted({path.parent.name for path in DEPLOY.glob("*/*.yaml")})
"""All that people apply by hand."""
OF_NO_NAMESPACE = ("CustomResourceDefinition", "Namespace")


@pytest.fixture(scope="module")
def cluster() -> None:
    """A cluster to ask, which knows GeneratorPools."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: nothing was tried on an API server")
    if "daybreak.dev/v1alpha1" not in run("kubectl", "api-versions").split():
        pytest.skip("the cluster knows no GeneratorPools: kubectl apply --server-side -f deploy/crd")


@pytest.fixture(scope="module")
def same_definition(cluster: None) -> None:
    """It has this tree's definition of them, not an older one."""
    (wanted,) = yaml.safe_load_all((DEPLOY / "crd" / "generatorpools.yaml").read_text())
    found = yaml.safe_load(run("kubectl", "get", "customresourcedefinition", NAME, "--output", "yaml"))
    mark = "daybreak.dev/definition"
    if found["metadata"].get("annotations", {}).get(mark) != wanted["metadata"]["annotations"][mark]:
        pytest.skip("the cluster has another definition: kubectl apply --server-side -f deploy/crd")


def known() -> set[str]:
    """The kinds that the cluster has, as charts ask for them: group and version, with and without the kind."""
    rows = [line.split() for line in run("kubectl", "api-resources", "--no-headers").splitlines()]
    return {row[-3] for row in rows} | {f"{row[-3]}/{row[-1]}" for row in rows}


def of_others(objects: list[Object]) -> set[tuple[str, str]]:
    """The kinds among them that a cluster may lack."""
    groups = tuple(kind.partition("/")[0] for kind in KINDS)
    return {(one["apiVersion"], one["kind"]) for one in objects if one["apiVersion"].startswith(groups)}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_an_api_server_takes_what_is_rendered(values: Any) -> None:
    """With the kinds that this very cluster knows, and with all of those: of KEDA, Prometheus, Gateway API."""
    rendered = run(
        *("helm", "template", "daybreak", CHART, "--namespace", "default"),
        *("--dry-run=server", "--no-hooks", "--values", values),
    )
    kinds = tuple(kind for kind in KINDS if kind in known())
    asked = of_others([one for one in yaml.safe_load_all(rendered) if one])
    assert asked == of_others(list(render(values, kinds=kinds).objects))
    run("kubectl", "apply", "--dry-run=server", "--namespace", "default", "--filename", "-", given=rendered)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("folder", FOLDERS)
def test_an_api_server_takes_the_plain_manifests(folder: str) -> None:
    """As they stand, but for their namespace, which need not be there for a dry run."""
    needs = {"keda": {"keda.sh/v1alpha1"}, "raycluster": {"ray.io/v1"}}.get(folder, set())
    if missing := needs - known():
        pytest.skip(f"the cluster does not know {', '.join(missing)}")
    made = "---\n".join(path.read_text() for path in sorted((DEPLOY / folder).glob("*.yaml")))
    objects = [one for one in yaml.safe_load_all(made) if one]
    for one in objects:
        if one["kind"] not in OF_NO_NAMESPACE:
            one["metadata"]["namespace"] = "default"
    # Of the server, as deploy/README.md has it for crd; whoever applied it before is no matter of the manifests.
    options = ("--server-side", "--force-conflicts") if folder == "crd" else ()
    manifests = yaml.safe_dump_all(objects)
    run("kubectl", "apply", "--dry-run=server", *options, "--filename", "-", given=manifests)


def pool(
    name: str = "tried", *, ray: Object | None = None, worker: Object | None = None, **spec: Any
) -> Object:
    """A GeneratorPool; `ray` and `worker` go into its RayCluster and into the one group of that."""
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
    """Every rule of the definition that is written in CEL."""
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        node = list(node.values())
    for one in node if isinstance(node, list) else ():
        yield from rules(one)


MESSAGES = {rule["message"] for rule in rules(definition())}
REFUSED = {
    "a name that begins with a digit": (pool("1st"), "begins with a letter"),
    "a name that is too long": (pool("a" * 32), "at most 31 characters"),
    "a name that is taken": (pool("api"), r"\bapi\b"),
    "ranks that hosts cannot share": (pool(ranks=3, hostsPerGroup=2), "hostsPerGroup must divide ranks"),
    "one and a half GPUs": (pool(resources={"gpus": 1.5}), "part of one GPU or a whole number"),
    "a window of no time": (pool(warmSchedule=[window("08:00", "08:00")]), "from and to of a window"),
    "Ray's autoscaler": (pool(ray={"enableInTreeAutoscaling": True}), "leave enableInTreeAutoscaling out"),
    "a suspended cluster": (pool(ray={"suspend": False}), r"leave suspend out.*spec\.idle"),
    "a head that remembers": (
        pool(ray={"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}),
        "leave gcsFaultToleranceOptions out",
    ),
    **{
        f"{field} of the group": (pool(worker={field: value}), f"leave {field} out.*the pool's own fields")
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


def test_each_rule_of_the_definition_has_a_pool_that_breaks_it() -> None:
    """Creating a pool breaks them all; a rule that compares with what was needs a test that changes one."""
    words = [words for _, words in REFUSED.values()]
    assert [one for one in MESSAGES if not any(re.search(each, one) for each in words)] == []
    assert not any("oldSelf" in rule["rule"] for rule in rules(definition()))


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", REFUSED)
def test_an_api_server_refuses_a_bad_pool_in_our_words(case: str) -> None:
    """By the one rule that it breaks, and by no other."""
    bad, words = REFUSED[case]
    said = ask("kubectl", "create", "--dry-run=server", "--filename", "-", given=yaml.safe_dump(bad))
    assert said.returncode == 1
    (broken,) = [one for one in MESSAGES if one in said.stderr]
    assert re.search(words, broken)


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", TAKEN)
def test_an_api_server_takes_a_pool_that_just_keeps_to_the_rules(case: str) -> None:
    """A rule that refuses more than it says would stop people."""
    run("kubectl", "create", "--dry-run=server", "--filename", "-", given=yaml.safe_dump(TAKEN[case]))
