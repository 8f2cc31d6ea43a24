"""Renders the chart with ``helm template``, and finds objects in the result."""

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
"""The kinds that the cluster is assumed to have besides Kubernetes' own."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects of a rendered chart."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def object(self, kind: str, name: str) -> Object:
        (match,) = [item for item in self.all(kind) if item["metadata"]["name"] == name]
        return match

    def templates(self) -> dict[str, Object]:
        """The template of every pod, including Ray's pods, by kind and name of the object that has the template."""
        templates = {}
        for item in self.objects:
            name = f"{item['kind']}/{item['metadata']['name']}"
            if item["kind"] == "Pod":
                templates[name] = item
            elif item["kind"] == "GeneratorPool":
                ray = item["spec"]["rayCluster"]["spec"]
                templates[f"{name}/head"] = ray["headGroupSpec"]["template"]
                templates[f"{name}/worker"] = ray["workerGroupSpecs"][0]["template"]
            elif "template" in item.get("spec", {}):
                templates[name] = item["spec"]["template"]
        return templates


class RefusedError(Exception):
    """Helm refused the values. The message comes from Helm."""


@functools.cache
def _rendered(values: tuple[str, ...], inline: str, kinds: tuple[str, ...], chart: Path) -> Rendered:
    command = ["helm", "template", "daybreak", str(chart), "--namespace", NAMESPACE]
    command += [part for path in values for part in ("--values", path)]
    command += [part for kind in kinds for part in ("--api-versions", kind)]
    result = subprocess.run(
        [*command, "--values", "-"], check=False, input=inline, text=True, capture_output=True
    )
    if result.returncode:
        raise RefusedError(result.stderr)
    objects = yaml.load_all(
        result.stdout, yaml.CSafeLoader
    )  # as safe as, and much faster than, `safe_load_all`
    return Rendered(tuple(item for item in objects if item))


def render(
    *files: Path,
    also: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = KINDS,
    chart: Path = CHART,
) -> Rendered:
    """Render the chart with these values files and the values in ``also``. The default file is `minimal-values.yaml`.

    :raises RefusedError: with Helm's message.
    """
    paths = tuple(str(item) for item in files or [CHART / "ci" / "minimal-values.yaml"])
    return _rendered(paths, json.dumps(also or {}), kinds, chart)
