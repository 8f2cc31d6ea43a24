"""Runs the tests that start Ray with another Ray than the lock's, in an environment of its own below build/.

    python tools/other_ray.py lowest [PYTEST…]     the oldest that services/python/pyproject.toml allows
    python tools/other_ray.py next [PYTEST…]       the newest release, whether or not it is allowed yet
    python tools/other_ray.py 2.61.0 [PYTEST…]     this one

Everything but Ray is as the lock has it. Where the lock has that Ray, `make test` has tried it: a line says so.
To allow a new series that passes: add it to TESTED_SERIES (adapters/ray/fast_start.py), where a test says what else
names it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
SERVER = ROOT / "services/python"
UV = Path(sys.executable).with_name("uv")
TESTS = (
    "test_fast_start.py",
    "test_deployments.py",
    "test_ray_start.py",
    "test_stock_ray.py",
    "test_cluster_table.py",
    "test_whole.py",
)


def locked() -> Version:
    (version,) = re.findall(r"^ray==(\S+)", LOCK.read_text(), re.MULTILINE)
    return Version(version)


def lowest() -> Version:
    project = tomllib.loads((SERVER / "pyproject.toml").read_text())["project"]
    (requirement,) = (Requirement(one) for one in project["optional-dependencies"]["ray"])
    (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
    return Version(bound)


def newest() -> Version:
    """The newest release that the package index has for this Python."""
    command = [UV, "pip", "compile", "-q", "--no-deps", "--no-header", "--no-annotate", "-"]
    made = subprocess.run(command, check=True, input="ray\n", text=True, capture_output=True, cwd="/").stdout
    (version,) = re.findall(r"^ray==([0-9][^\s;]*)", made, re.MULTILINE)
    return Version(version)


def install(version: Version, folder: Path) -> Path:
    """An environment with this Ray; returns its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    subprocess.run([UV, "venv", "-q", "-p", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    override = folder / "override.txt"
    override.write_text(f"ray=={version}\nray-haproxy\n")  # that one goes with a Ray
    into = [UV, "pip", "install", "-q", "-p", python]
    subprocess.run([*into, "-r", LOCK, "--override", override], check=True)
    subprocess.run([*into, "--no-deps", "-e", ROOT / "controlplane-sdk", "-e", SERVER], check=True)
    return python


def main(which: str, *options: str) -> int:
    version = {"lowest": lowest, "next": newest}.get(which, lambda: Version(which))()
    if version == locked():
        print(f"Ray {version} ({which}) is the one of requirements.lock: `make test` tests it")
        return 0
    print(f"Ray {version} ({which}) instead of {locked()}, in build/ray-{which}", flush=True)
    python = install(version, ROOT / "build" / f"ray-{which}")
    tests = [SERVER / "tests" / "up" / name for name in TESTS]
    # Found on PATH, other environments' programs would be started.
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = [python, "-m", "pytest", *tests, *options]
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
