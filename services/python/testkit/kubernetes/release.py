"""Install, upgrade and remove the chart with Helm."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from testkit.kubernetes.image_watch import ImageWatch, MissingImageError, images_of
from testkit.log import log

NAME = "daybreak"
CHART = Path(__file__).parents[4] / "deploy" / "helm" / "daybreak"

_CHECK_S = 1.0


class HelmError(AssertionError):
    """Helm failed. The message contains its output."""


def _force_flags() -> list[str]:
    """The flags that make Helm overwrite fields that other programs have changed. Helm 3 needs no such flag."""
    result = subprocess.run(["helm", "version", "--short"], text=True, capture_output=True, check=True)
    return [] if result.stdout.startswith("v3.") else ["--force-conflicts"]


class Release:
    """One release of the chart in a namespace."""

    def __init__(self, namespace: str, *, chart: Path = CHART, watch: ImageWatch | None = None) -> None:
        self._namespace = namespace
        self._chart = chart
        self._watch = watch
        self._values: Mapping[str, Any] | None = None
        """The values of the last install or upgrade; ``None`` if they are unknown."""

    def install(self, values: Mapping[str, Any], *, timeout_s: int = 240) -> None:
        """Install the chart, and wait until everything is ready.

        If it is an older chart, its CRD of GeneratorPool replaces the one in the cluster.
        """
        force = _force_flags() if self._chart != CHART else []
        options = ["--wait", f"--timeout={timeout_s}s", *force]
        self._helm("install", NAME, str(self._chart), *options, values=values)
        self._values = values

    def upgrade(self, values: Mapping[str, Any], *files: Path, timeout_s: int = 240) -> None:
        """Upgrade to this tree's chart. With Helm 4, this also resets fields that were changed by hand.

        The values files ``files`` come first; ``values`` override them.
        """
        self._values = None
        value_files = [f"--values={file}" for file in files]
        options = ["--wait", f"--timeout={timeout_s}s", *_force_flags(), *value_files]
        self._helm("upgrade", NAME, str(CHART), *options, values=values)
        self._values = None if files else values

    def ensure(self, values: Mapping[str, Any]) -> None:
        """Upgrade to these values, unless the release already has them."""
        if values != self._values:
            self.upgrade(values)

    def rollback(self, *, timeout_s: int = 240) -> None:
        self._values = None
        self._helm("rollback", NAME, "--wait", f"--timeout={timeout_s}s", *_force_flags())

    def uninstall(self, *, timeout_s: int = 180) -> None:
        self._values = None
        self._helm("uninstall", NAME, "--wait", f"--timeout={timeout_s}s")

    def test(self, *, timeout_s: int = 300) -> str:
        """Run `helm test`, the chart's own check of an installation. Returns its output."""
        stdout = self._helm("test", NAME, "--logs", f"--timeout={timeout_s}s")
        for line in stdout.splitlines():
            log(f"    {line}")
        return stdout

    def client_pod(self, name: str, command: Sequence[str]) -> dict[str, Any]:
        """The manifest of a pod that runs a command in Daybreak's image, with the labels of `helm test`'s pod.

        The network policies treat both pods alike.
        """
        hooks = yaml.safe_load_all(self._helm("get", "hooks", NAME))
        (pod,) = [hook for hook in hooks if hook["metadata"]["annotations"]["helm.sh/hook"] == "test"]
        (container,) = pod["spec"]["containers"]
        meta = {"name": name, "labels": pod["metadata"]["labels"]}
        containers = [{**container, "command": list(command), "args": []}]
        return {**pod, "metadata": meta, "spec": {**pod["spec"], "containers": containers}}

    def _helm(self, *args: str, values: Mapping[str, Any] | None = None) -> str:
        started = time.monotonic()
        command = ["helm", "-n", self._namespace, *args, *(["--values", "-"] if values is not None else [])]
        images = images_of(values) if values is not None else frozenset()
        code, stdout, stderr = self._run(command, json.dumps(values or {}), images)
        if code:
            raise HelmError(f"{' '.join(command)}: {stderr.strip() or stdout.strip()}")
        log(f"helm {args[0]} took {time.monotonic() - started:.1f} s")
        return stdout

    def _run(self, command: list[str], values: str, images: frozenset[str]) -> tuple[int, str, str]:
        """Run the command. :raises MissingImageError: when the watch reports an image that cannot be pulled."""
        stdin: str | None = values
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while True:
                try:
                    stdout, stderr = process.communicate(stdin, timeout=_CHECK_S)
                    return process.returncode, stdout, stderr
                except subprocess.TimeoutExpired:
                    stdin = None  # the values have been written
                try:
                    if self._watch is not None:
                        self._watch.check(images)
                except MissingImageError:
                    process.kill()
                    raise
