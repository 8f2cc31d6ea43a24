"""The chart, by Helm."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.images import ImageWatch, MissingImageError, images_of
from testkit.log import say

NAME = "daybreak"
CHART = Path(__file__).parents[4] / "deploy" / "helm" / "daybreak"

_LOOK_S = 1.0


class HelmError(AssertionError):
    """Helm refused; its words."""


def _forced() -> list[str]:
    """Helm 4 refuses what somebody else has changed, unless it is told; Helm 3 never looked."""
    done = subprocess.run(["helm", "version", "--short"], text=True, capture_output=True, check=True)
    return [] if done.stdout.startswith("v3.") else ["--force-conflicts"]


class Release:
    """One release of the chart in a namespace."""

    def __init__(self, namespace: str, *, chart: Path = CHART, watch: ImageWatch | None = None) -> None:
        self._namespace = namespace
        self._chart = chart
        self._watch = watch

    def install(self, values: Mapping[str, Any], *, timeout_s: int = 240) -> None:
        """And wait until what it made is ready. A chart of before brings its own definition, whoever made another."""
        forced = _forced() if self._chart != CHART else []
        options = ["--wait", f"--timeout={timeout_s}s", *forced]
        self._helm("install", NAME, str(self._chart), *options, values=values)

    def upgrade(self, values: Mapping[str, Any], *files: Path, timeout_s: int = 240) -> None:
        """To the chart of this tree, from whichever it was; pools that were changed by hand follow the values again.

        ``files``: values files that are read before ``values``.
        """
        given = [f"--values={file}" for file in files]
        options = ["--wait", f"--timeout={timeout_s}s", *_forced(), *given]
        self._helm("upgrade", NAME, str(CHART), *options, values=values)

    def rollback(self, *, timeout_s: int = 240) -> None:
        self._helm("rollback", NAME, "--wait", f"--timeout={timeout_s}s", *_forced())

    def uninstall(self, *, timeout_s: int = 180) -> None:
        self._helm("uninstall", NAME, "--wait", f"--timeout={timeout_s}s")

    def test(self, *, timeout_s: int = 300) -> str:
        """`helm test`: the chart's own check of an installation; what it wrote."""
        wrote = self._helm("test", NAME, "--logs", f"--timeout={timeout_s}s")
        for line in wrote.splitlines():
            say(f"    {line}")
        return wrote

    def _helm(self, *args: str, values: Mapping[str, Any] | None = None) -> str:
        began = time.monotonic()
        command = ["helm", "-n", self._namespace, *args, *(["--values", "-"] if values is not None else [])]
        images = images_of(values) if values is not None else frozenset()
        code, wrote, complained = self._run(command, json.dumps(values or {}), images)
        if code:
            raise HelmError(f"{' '.join(command)}: {complained.strip() or wrote.strip()}")
        say(f"helm {args[0]} took {time.monotonic() - began:.1f} s")
        return wrote

    def _run(self, command: list[str], given: str, images: frozenset[str]) -> tuple[int, str, str]:
        """Run it to its end. :raises MissingImageError: as soon as it waits for an image in vain."""
        stdin: str | None = given
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while True:
                try:
                    wrote, complained = process.communicate(stdin, timeout=_LOOK_S)
                    return process.returncode, wrote, complained
                except subprocess.TimeoutExpired:
                    stdin = None  # it has it already
                try:
                    if self._watch is not None:
                        self._watch.look(images)
                except MissingImageError:
                    process.kill()
                    raise
