"""docs/install.md: the chart takes its values, and its commands name what there is. kind, EKS and GKE are not run."""

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


def instead(of: Object, parts: Object) -> Object:
    """What the page says of GKE: these parts are other. Of a node selector nothing stays."""
    made = dict(of)
    for name, value in parts.items():
        deeper = isinstance(value, dict) and isinstance(of.get(name), dict) and name != "nodeSelector"
        made[name] = instead(of[name], value) if deeper else value
    return made


def values() -> dict[str, Object]:
    """By the cluster that they are for."""
    ((_, kind),) = [file for code in COMMANDS for file in HEREDOC.findall(code)]
    eks, gke = [yaml.safe_load(code) for language, code in PAGE if language == "yaml"]
    without = {name: value for name, value in eks.items() if name != "serviceAccounts"}
    return {"kind": yaml.safe_load(kind), "eks": eks, "gke": instead(without, gke)}


def rendered(cluster: str, folder: Path) -> Rendered:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values()[cluster]))
    return render(file)


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize("cluster", ["kind", "eks", "gke"])
def test_the_chart_takes_the_values(cluster: str, tmp_path: Path) -> None:
    """Its linter, its strict schema, its own checks; and kube-score as with the files of `ci`."""
    made = rendered(cluster, tmp_path)
    assert {one["metadata"]["name"] for one in made.all("GeneratorPool")} == {"echo", "video"}
    run("helm", "lint", "--strict", CHART, "--values", tmp_path / "values.yaml")
    run("kube-score", "score", "-", "--output-format", "ci", given=yaml.safe_dump_all(made.objects))


@pytest.mark.usefixtures("helm")
def test_a_pod_asks_for_what_the_page_says(tmp_path: Path) -> None:
    """Four ranks share a host: 32 CPUs, 4 GPUs, 256 GiB."""
    found = rendered("eks", tmp_path).one("GeneratorPool", "video")
    pool = GeneratorPool.read({**found, "metadata": {**found["metadata"], "uid": "u"}})
    (group,) = manifests.cluster(pool, replicas=1, suspend=False)["spec"]["workerGroupSpecs"]
    asked = group["template"]["spec"]["containers"][0]["resources"]
    assert asked["requests"]["cpu"] == "32000m"
    # Where only a limit is said, it is what is asked for.
    assert (asked["limits"]["nvidia.com/gpu"], asked["limits"]["memory"]) == (4, "256Gi")


@pytest.mark.usefixtures("helm")
def test_nothing_of_eks_is_left_on_gke(tmp_path: Path) -> None:
    """A node selector that no node has would leave pods waiting for ever."""
    assert "eks.amazonaws.com" not in yaml.safe_dump_all(rendered("gke", tmp_path).objects)


def commands() -> Iterator[list[str]]:
    """Each command's words, without comments, heredocs and what the shell does with its output."""
    for code in COMMANDS:
        for line in HEREDOC.sub("", code).replace("\\\n", " ").splitlines():
            if words := [word for word in shlex.split(line, comments=True) if word != "&"]:
                yield words


@pytest.mark.parametrize("code", COMMANDS, ids=lambda code: code.split("\n", 1)[0][:40])
def test_bash_takes_each_block(code: str) -> None:
    """Quotes and heredocs end where they should."""
    done = subprocess.run(["bash", "-n"], check=False, input=code, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_name_files_and_targets_that_there_are() -> None:
    """Folders of deploy, targets of make, and the values file that the page itself writes."""
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


def test_our_own_programs_take_their_commands() -> None:
    """Every option and argument; nothing is run."""
    tried = set()
    for words in commands():
        for at, word in enumerate(words):
            name = word.rpartition("/")[2]
            if name in PROGRAMS and at + 1 < len(words) and (at == 0 or words[at - 1] == "--"):
                leaf = PROGRAMS[name].commands[words[at + 1]]
                leaf.make_context(words[at + 1], words[at + 2 :])
                tried.add((name, words[at + 1]))
    assert tried == {("daybreak", "generate"), ("daybreak", "pools"), ("daybreakd", "doctor")}
