"""Tests of the Dockerfile, and of the arguments that ``make image`` passes to the builder. The tests build no image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from deploy_chart import REPOSITORY
from deploy_tools import try_run


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_an_image_is_labelled_with_its_version_and_revision(builder: str, tmp_path: Path) -> None:
    """Every builder gets version and revision. Without these arguments, the labels are ``dev`` and ``unknown``."""
    for name in ("make", "bash", "git", "sed"):
        if (program := shutil.which(name)) is None:
            pytest.skip(f"{name} is not on PATH")
        (tmp_path / name).symlink_to(program)
    fake_builder = tmp_path / builder
    fake_builder.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake_builder.chmod(0o755)
    # The variables of an outer make would change the output and behaviour of this make.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(
        ["make", "--no-print-directory", "image", "IMAGE=somewhere/daybreak:1"],
        check=False,
        cwd=REPOSITORY,
        env={**inherited, "PATH": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    project = tomllib.loads((REPOSITORY / "services/python/pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    # A tree that was unpacked from an archive has no revision.
    revision = try_run("git", "-C", REPOSITORY, "rev-parse", "--verify", "HEAD").stdout.strip() or "unknown"
    assert result.stdout.split() == [
        *("build", "-t", "somewhere/daybreak:1"),
        *("--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}", "."),
    ]


def test_the_image_has_the_packages_of_every_extra() -> None:
    """Some values of the chart turn on features, such as traces, that need an extra. No pod can install an extra.

    The image lacks the extra `evaluate`, which draws charts, because only people at a terminal need it.
    """
    project = tomllib.loads((REPOSITORY / "services/python/pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    (all_of_them,) = extras["all"]
    assert set(re.findall(r"[a-z0-9]+", all_of_them.partition("[")[2])) == set(extras) - {"all", "evaluate"}
    assert "--extra all " in (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


def test_every_argument_of_a_label_is_declared_in_the_last_stage() -> None:
    """An argument that is declared only in another stage would silently be empty."""
    last = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    used = set(re.findall(r'org\.opencontainers\.image\.[a-z.]+="\$\{(\w+)\}"', last))
    assert used == set(re.findall(r"^ARG (\w+)", last, re.MULTILINE)) == {"BASE", "VERSION", "REVISION"}
