"""What other people's tools say of the chart; each is skipped, with a word, where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy_chart import CHART, KINDS, REPOSITORY, VALUES, render

every = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def run(*command: str | Path, given: str = "") -> str:
    """What a tool says; skips where it is not on PATH, fails where it fails."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not on PATH")
    done = subprocess.run(
        [str(one) for one in command], check=False, input=given, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def as_yaml(values: Path) -> str:
    return yaml.safe_dump_all(render(values).objects)


@every
def test_helm_lint_is_content(values: Path) -> None:
    """Strictly: warnings count."""
    run("helm", "lint", "--strict", CHART, "--values", values)


def test_the_charts_own_unit_tests_pass() -> None:
    """helm-unittest, which can play a cluster that has older Secrets and definitions."""
    said = run("helm-unittest", "--strict", CHART)
    assert "Test Suites: 0 passed" not in said


@pytest.mark.usefixtures("helm")
@every
def test_kube_score_finds_nothing_critical(values: Path) -> None:
    """But what the annotations `kube-score/ignore` name, each beside its reason."""
    run("kube-score", "score", "-", "--output-format", "ci", given=as_yaml(values))


@pytest.fixture(scope="module")
def cluster() -> None:
    """A cluster to ask, which KUBECONFIG names and which knows GeneratorPools. Nothing is written to it."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: nothing was tried on an API server")
    for tool in ("helm", "kubectl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH")
    if "daybreak.dev/v1alpha1" not in run("kubectl", "api-versions").split():
        pytest.skip("the cluster knows no GeneratorPools: kubectl apply --server-side -f deploy/crd")


def dry_run(manifests: str, *options: str) -> None:
    run("kubectl", "apply", "--dry-run=server", *options, "--filename", "-", given=manifests)


@pytest.mark.usefixtures("cluster")
@every
def test_an_api_server_takes_what_is_rendered(values: Path) -> None:
    """With the kinds that this very cluster knows: with and without those of KEDA, Prometheus, Gateway API."""
    rendered = run(
        *("helm", "template", "daybreak", CHART, "--namespace", "default"),
        *("--dry-run=server", "--no-hooks", "--values", values),
    )
    dry_run(rendered, "--namespace", "default")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("folder", ["keda", "raycluster", "s3"])
def test_an_api_server_takes_the_plain_manifests(folder: str) -> None:
    """As they stand, but for their namespace, which need not be there for a dry run."""
    needs = {"keda": {"keda.sh/v1alpha1"}, "raycluster": {"ray.io/v1"}}.get(folder, set())
    if missing := needs - set(run("kubectl", "api-versions").split()):
        pytest.skip(f"the cluster does not know {', '.join(missing)}")
    made = "---\n".join(path.read_text() for path in sorted((REPOSITORY / "deploy" / folder).glob("*.yaml")))
    objects = [one for one in yaml.safe_load_all(made) if one and one["kind"] != "Namespace"]
    for one in objects:
        one["metadata"]["namespace"] = "default"
    dry_run(yaml.safe_dump_all(objects), "--namespace", "default")


def test_the_kinds_that_tests_assume_are_those_that_templates_ask_for() -> None:
    """A template that asks for another kind would never be rendered here."""
    asked = set()
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            for piece in path.read_text().split("APIVersions.Has ")[1:]:
                asked.add(piece.split('"')[1])
    of_notes = {
        "ray.io/v1/RayCluster",
        "keda.sh/v1alpha1/ScaledObject",
        "daybreak.dev/v1alpha1/GeneratorPool",
    }
    assert asked - of_notes == set(KINDS)
