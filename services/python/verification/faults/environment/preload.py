"""Small C libraries that are loaded before libc into single processes (Linux, a C compiler)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


class PreloadAbsentError(RuntimeError):
    """This machine cannot build them; the message says why."""


def build(source: Path, library: Path) -> Path:
    """Compile ``source`` to ``library``. :raises PreloadAbsentError: where that is not possible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise PreloadAbsentError("there is no C compiler for a library before libc")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if built.returncode:
        raise PreloadAbsentError(f"{source.name} does not build: {built.stderr[-300:]}")
    return library
