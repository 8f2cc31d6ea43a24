"""A real API server checks the chart, the plain manifests and invalid GeneratorPools. All requests that would write
are dry runs.

The server is the one in ``KUBECONFIG``. ``.ci/run`` runs the tests twice: first on a cluster without the kinds of
Prometheus and of the Gateway API, then with these kinds. It leaves out the first run if the cluster already has them.
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
"""The folders with manifests for ``kubectl apply``."""
CLUSTER_SCOPED = ("CustomResourceDefinition", "Namespace")


@pytest.fixture(scope="module")
def cluster() -> None:
    """Skip the test unless there is a cluster that has the CRD of GeneratorPool."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set, so nothing was tested on an API server")
    if "daybreak.dev/v1alpha1" not in run("kubectl", "api-versions").split():
        pytest.skip("the cluster has no GeneratorPool resource: kubectl apply --server-side -f deploy/crd")


@pytest.fixture(scope="module")
def same_definition(cluster: None) -> None:
    """Skip the test if the cluster has another version of the CRD than this tree."""
    (ours,) = yaml.safe_load_all((DEPLOY / "crd" / "generatorpools.yaml").read_text())
    installed = yaml.safe_load(run("kubectl", "get", "customresourcedefinition", NAME, "--output", "yaml"))
    mark = "daybreak.dev/definition"
    if installed["metadata"].get("annotations", {}).get(mark) != ours["metadata"]["annotations"][mark]:
        pytest.skip("the cluster has another version of the CRD: kubectl apply --server-side -f deploy/crd")


def known() -> set[str]:
    """What the cluster serves, in the forms that charts check for: ``group/version`` and ``group/version/Kind``."""
    rows = [line.split() for line in run("kubectl", "api-resources", "--no-headers").splitlines()]
    return {row[-3] for row in rows} | {f"{row[-3]}/{row[-1]}" for row in rows}


def optional_kinds(objects: list[Object]) -> set[tuple[str, str]]:
    """The kinds of these objects, without the kinds that every cluster has."""
    groups = tuple(kind.partition("/")[0] for kind in KINDS)
    return {(item["apiVersion"], item["kind"]) for item in objects if item["apiVersion"].startswith(groups)}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_an_api_server_accepts_the_rendered_chart(values: Any) -> None:
    """The chart renders those optional kinds (KEDA, Prometheus operator, Gateway API) that this cluster has."""
    rendered = run(
        *("helm", "template", "daybreak", CHART, "--namespace", "default"),
        *("--dry-run=server", "--no-hooks", "--values", values),
    )
    kinds = tuple(kind for kind in KINDS if kind in known())
    requested = optional_kinds([item for item in yaml.safe_load_all(rendered) if item])
    assert requested == optional_kinds(list(render(values, kinds=kinds).objects))
    run("kubectl", "apply", "--dry-run=server", "--namespace", "default", "--filename", "-", stdin=rendered)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("folder", FOLDERS)
def test_an_api_server_accepts_the_plain_manifests(folder: str) -> None:
    """The test changes only the namespace of the manifests, because the cluster may lack their namespace."""
    needs = {"keda": {"keda.sh/v1alpha1"}, "raycluster": {"ray.io/v1"}}.get(folder, set())
    if missing := needs - known():
        pytest.skip(f"the cluster does not know {', '.join(missing)}")
    text = "---\n".join(path.read_text() for path in sorted((DEPLOY / folder).glob("*.yaml")))
    objects = [item for item in yaml.safe_load_all(text) if item]
    for item in objects:
        if item["kind"] not in CLUSTER_SCOPED:
            item["metadata"]["namespace"] = "default"
    # The CRD is applied server-side, as in deploy/README.md. Conflicts with an earlier field manager do not matter.
    options = ("--server-side", "--force-conflicts") if folder == "crd" else ()
    manifests = yaml.safe_dump_all(objects)
    run("kubectl", "apply", "--dry-run=server", *options, "--filename", "-", stdin=manifests)


def pool(
    name: str = "tried", *, ray: Object | None = None, worker: Object | None = None, **spec: Any
) -> Object:
    """Make a GeneratorPool. ``ray`` and ``worker`` are added to its RayCluster and its worker group."""
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
    """Yield every CEL rule of the CRD."""
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from rules(item)


MESSAGES = {rule["message"] for rule in rules(definition())}
REFUSED = {
    "a name that begins with a digit": (pool("1st"), "begins with a letter"),
    "a name that is too long": (pool("a" * 32), "at most 31 characters"),
    "a reserved name": (pool("api"), r"\bapi\b"),
    "ranks that hosts cannot share": (pool(ranks=3, hostsPerGroup=2), "hostsPerGroup must divide ranks"),
    "one and a half GPUs": (pool(resources={"gpus": 1.5}), "fraction of one GPU or a whole number"),
    "a target load without requests": (pool(kind="jobs", targetLoad=4), "remove targetLoad"),
    "sessions on two ranks": (pool(kind="sessions", ranks=2), "set ranks to 1"),
    "a window of zero length": (pool(warmSchedule=[window("08:00", "08:00")]), "from and to of a window"),
    "Ray's autoscaler": (pool(ray={"enableInTreeAutoscaling": True}), "remove enableInTreeAutoscaling"),
    "a suspended cluster": (pool(ray={"suspend": False}), r"remove suspend.*spec\.idle"),
    "a head with fault tolerance": (
        pool(ray={"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}),
        "remove gcsFaultToleranceOptions",
    ),
    **{
        f"{field} of the group": (
            pool(worker={field: value}),
            f"remove {field}: only the operator may set it",
        )
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
ACCEPTED = {
    "only the required fields": pool(),
    "the longest name": pool("a" * 31),
    "ranks that hosts share": pool(ranks=8, hostsPerGroup=2, resources={"gpus": 4.0}),
    "a part of a GPU": pool(resources={"gpus": 0.5}),
    "a pool that answers requests": pool(kind="online", targetLoad=2.5),
    "a pool that holds sessions": pool(kind="sessions", targetLoad=24),
    "a target load for the kind of the workload": pool(targetLoad=4),
    "a window over midnight": pool(warmSchedule=[window("22:00", "06:00")]),
    "Ray's autoscaler turned off": pool(ray={"enableInTreeAutoscaling": False}),
}


def test_each_rule_of_the_crd_has_a_pool_that_breaks_it() -> None:
    """Each rule can be broken by creating a pool. A rule about changes would need a test that changes a pool."""
    words = [words for _, words in REFUSED.values()]
    assert [item for item in MESSAGES if not any(re.search(pattern, item) for pattern in words)] == []
    assert not any("oldSelf" in rule["rule"] for rule in rules(definition()))


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", REFUSED)
def test_an_api_server_refuses_an_invalid_pool_with_our_message(case: str) -> None:
    """The error has the message of the only rule that the pool breaks."""
    bad, words = REFUSED[case]
    result = try_run("kubectl", "create", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump(bad))
    assert result.returncode == 1
    (broken,) = [item for item in MESSAGES if item in result.stderr]
    assert re.search(words, broken)


@pytest.mark.usefixtures("same_definition")
@pytest.mark.parametrize("case", ACCEPTED)
def test_an_api_server_accepts_a_pool_that_just_meets_the_rules(case: str) -> None:
    """No rule refuses more than its message says."""
    run("kubectl", "create", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump(ACCEPTED[case]))
