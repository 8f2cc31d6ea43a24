"""The chart as `helm template` renders it, and the objects in it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[4]
CHART = REPOSITORY / "deploy" / "helm" / "daybreak"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "somewhere"
KINDS = (
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "gateway.networking.k8s.io/v1/HTTPRoute",
)
"""What the cluster is taken to know beside Kubernetes' own."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """A chart's objects."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        (found,) = [one for one in self.all(kind) if one["metadata"]["name"] == name]
        return found

    def templates(self) -> dict[str, Object]:
        """Every pod's metadata and spec by what it is of, Ray's among them."""
        found = {}
        for one in self.objects:
            name = f"{one['kind']}/{one['metadata']['name']}"
            if one["kind"] == "Pod":
                found[name] = one
            elif one["kind"] == "GeneratorPool":
                ray = one["spec"]["rayCluster"]["spec"]
                found[f"{name}/head"] = ray["headGroupSpec"]["template"]
                found[f"{name}/worker"] = ray["workerGroupSpecs"][0]["template"]
            elif "template" in one.get("spec", {}):
                found[name] = one["spec"]["template"]
        return found


class RefusedError(Exception):
    """Helm refused; its words."""


@functools.cache
def _rendered(values: tuple[str, ...], inline: str, kinds: tuple[str, ...], chart: Path) -> Rendered:
    command = ["helm", "template", "daybreak", str(chart), "--namespace", NAMESPACE]
    command += [part for path in values for part in ("--values", path)]
    command += [part for kind in kinds for part in ("--api-versions", kind)]
    done = subprocess.run(
        [*command, "--values", "-"], check=False, input=inline, text=True, capture_output=True
    )
    if done.returncode:
        raise RefusedError(done.stderr)
    return Rendered(tuple(one for one in yaml.safe_load_all(done.stdout) if one))


def render(
    *files: Path,
    also: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = KINDS,
    chart: Path = CHART,
) -> Rendered:
    """With values files and further values; the least that has to be said where no file is named.

    :raises RefusedError: with Helm's words.
    """
    paths = tuple(str(one) for one in files or [CHART / "ci" / "minimal-values.yaml"])
    return _rendered(paths, json.dumps(also or {}), kinds, chart)
