"""Creates below `build/competitors` an environment for each competitor, from its requirements file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from verification.benchmarks.competitors.contenders import ENVIRONMENTS, HERE, Contender


def make(contender: Contender) -> None:
    """Create its environment unless it exists. :raises subprocess.CalledProcessError: if that fails."""
    if contender.environment is None or contender.installed:
        return
    folder = ENVIRONMENTS / contender.environment
    requirements = HERE / "requirements" / f"{contender.environment}.txt"
    uv = Path(sys.executable).parent / "uv"
    print(f"Installing {contender.name} into {folder} …", file=sys.stderr)
    try:
        if uv.exists():
            _run([str(uv), "venv", "-q", "-p", sys.executable, str(folder)])
            _run(
                [
                    str(uv),
                    "pip",
                    "install",
                    "-q",
                    "-p",
                    str(folder / "bin" / "python"),
                    "-r",
                    str(requirements),
                ]
            )
        else:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements)])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # else the next run would use an incomplete environment
        raise


def versions(contender: Contender) -> dict[str, str]:
    """The installed versions of its packages."""
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    result = subprocess.run(
        [str(contender.programs / "python"), "-c", code, *contender.packages],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    installed: dict[str, str] = json.loads(result.stdout)
    return installed


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
