"""Builds small C libraries, which ``LD_PRELOAD`` loads into chosen processes. Needs Linux and a C compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


class PreloadAbsentError(RuntimeError):
    """This machine cannot build a library to preload. The message says why."""


def build(source: Path, library: Path) -> Path:
    """Compile ``source`` to ``library``. :raises PreloadAbsentError: when that fails."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise PreloadAbsentError("preloaded libraries need Linux and a C compiler on PATH")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if built.returncode:
        raise PreloadAbsentError(f"{source.name} did not compile: {built.stderr[-300:]}")
    return library
