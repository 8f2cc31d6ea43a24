"""Creates an environment in `build/competitors` for each competitor, from the competitor's requirements file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from verification.benchmarks.competitors.contenders import ENVIRONMENTS, HERE, Contender


def make(contender: Contender) -> None:
    """Create the competitor's environment unless it exists.

    :raises subprocess.CalledProcessError: if the environment cannot be created.
    """
    if contender.environment is not None:
        requirements = HERE / "requirements" / f"{contender.environment}.txt"
        install(contender.name, ENVIRONMENTS / contender.environment, requirements)


def install(name: str, folder: Path, requirements: Path, more: Sequence[str] = ()) -> None:
    """Create an environment in ``folder`` unless it exists.

    :param more: requirements in addition to those in the file.
    :raises subprocess.CalledProcessError: if the environment cannot be created.
    """
    python = folder / "bin" / "python"
    if python.exists():
        return
    uv = Path(sys.executable).parent / "uv"
    print(f"Installing {name} into {folder} …", file=sys.stderr)
    try:
        if uv.exists():
            _run([str(uv), "venv", "-q", "-p", sys.executable, str(folder)])
            _run([str(uv), "pip", "install", "-q", "-p", str(python), "-r", str(requirements), *more])
        else:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements), *more])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # else the next run would use an incomplete environment
        raise


def versions(contender: Contender) -> dict[str, str]:
    """The installed versions of the competitor's packages."""
    return versions_of(contender.programs, contender.packages)


def versions_of(programs: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in the environment whose programs are in the folder ``programs``."""
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    result = subprocess.run(
        [str(programs / "python"), "-c", code, *packages], check=True, capture_output=True, text=True
    )
    installed: dict[str, str] = json.loads(result.stdout)
    return installed


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
