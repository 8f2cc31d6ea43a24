"""Tests of docs/install.md: the values fit the chart, and the commands are valid. No cluster is started."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deploy_chart import CHART, REPOSITORY, Object, Rendered, render
from deploy_tools import run
from typer.main import get_group

from daybreak.cli.main import app as client
from daybreak_server.cli.main import app as server
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.operator.planner import render as manifests

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"^cat > (\S+) <<'YAML'\n(.*?)^YAML$", re.MULTILINE | re.DOTALL)
PAGE = FENCED.findall((REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8"))
COMMANDS = [code for kind, code in PAGE if kind == "bash"]
PROGRAMS = {"daybreak": get_group(client), "daybreakd": get_group(server)}


def replaced(base: Object, parts: Object) -> Object:
    """Replace parts of the values, as the page says for GKE. Node selectors are replaced as a whole."""
    result = dict(base)
    for name, value in parts.items():
        recurse = isinstance(value, dict) and isinstance(base.get(name), dict) and name != "nodeSelector"
        result[name] = replaced(base[name], value) if recurse else value
    return result


def values() -> dict[str, Object]:
    """The values of the page for each cluster: kind, EKS and GKE."""
    ((_, kind),) = [file for code in COMMANDS for file in HEREDOC.findall(code)]
    eks, gke = [
        yaml.safe_load(code) for language, code in PAGE if language == "yaml" and "artifacts:" in code
    ]
    without = {name: value for name, value in eks.items() if name != "serviceAccounts"}
    return {"kind": yaml.safe_load(kind), "eks": eks, "gke": replaced(without, gke)}


def rendered(cluster: str, folder: Path) -> Rendered:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values()[cluster]))
    return render(file)


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize("cluster", ["kind", "eks", "gke"])
def test_the_chart_accepts_the_values_of_the_page(cluster: str, tmp_path: Path) -> None:
    """The values pass Helm's linter, the schema, the chart's own checks and kube-score."""
    chart = rendered(cluster, tmp_path)
    assert {item["metadata"]["name"] for item in chart.all("GeneratorPool")} == {"echo", "video"}
    run("helm", "lint", "--strict", CHART, "--values", tmp_path / "values.yaml")
    run("kube-score", "score", "-", "--output-format", "ci", stdin=yaml.safe_dump_all(chart.objects))


@pytest.mark.usefixtures("helm")
def test_a_pod_requests_the_resources_that_the_page_states(tmp_path: Path) -> None:
    """Four ranks share a host: 32 CPUs, 4 GPUs, 256 GiB."""
    manifest = rendered("eks", tmp_path).object("GeneratorPool", "video")
    pool = GeneratorPool.read({**manifest, "metadata": {**manifest["metadata"], "uid": "u"}})
    (group,) = manifests.cluster(pool, replicas=1, suspend=False)["spec"]["workerGroupSpecs"]
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["cpu"] == "32000m"
    # If a resource has a limit and no request, Kubernetes uses the limit as the request.
    assert (resources["limits"]["nvidia.com/gpu"], resources["limits"]["memory"]) == (4, "256Gi")


@pytest.mark.usefixtures("helm")
def test_the_gke_values_have_no_eks_selector(tmp_path: Path) -> None:
    """A node selector that matches no node would leave pods pending forever."""
    assert "eks.amazonaws.com" not in yaml.safe_dump_all(rendered("gke", tmp_path).objects)


def commands() -> Iterator[list[str]]:
    """The words of each command, without comments, heredocs and `&`."""
    for code in COMMANDS:
        for line in HEREDOC.sub("", code).replace("\\\n", " ").splitlines():
            if words := [word for word in shlex.split(line, comments=True) if word != "&"]:
                yield words


@pytest.mark.parametrize("code", COMMANDS, ids=lambda code: code.split("\n", 1)[0][:40])
def test_bash_can_parse_each_block(code: str) -> None:
    """No quote or heredoc is left open."""
    result = subprocess.run(["bash", "-n"], check=False, input=code, text=True, capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_commands_name_files_and_targets_that_exist() -> None:
    """The commands use folders of ``deploy``, targets of make, and the values file that the page writes."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    written = {name for code in COMMANDS for name, _ in HEREDOC.findall(code)}
    named = {word for words in commands() for word in words if word.startswith("deploy/")} - {
        "deploy/daybreak-gateway",  # Deployments, as kubectl names them
        "deploy/daybreak-operator",
    }
    assert {"deploy/s3", "deploy/helm/daybreak"} <= named
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []
    targets = {words[1] for words in commands() if words[0] == "make"}
    assert targets == {"image", "setup"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    files = {words[words.index("-f") + 1] for words in commands() if words[0] == "helm" and "-f" in words}
    assert files == written


def test_daybreaks_programs_accept_the_commands_of_the_page() -> None:
    """The programs parse every option and argument of the page. Nothing is run."""
    tried = set()
    for words in commands():
        for at, word in enumerate(words):
            name = word.rpartition("/")[2]
            if name in PROGRAMS and at + 1 < len(words) and (at == 0 or words[at - 1] == "--"):
                leaf = PROGRAMS[name].commands[words[at + 1]]
                leaf.make_context(words[at + 1], words[at + 2 :])
                tried.add((name, words[at + 1]))
    assert tried == {("daybreak", "generate"), ("daybreak", "pools"), ("daybreakd", "doctor")}
