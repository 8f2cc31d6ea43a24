"""Copies ``daybreakd worker`` into a folder from which it runs in any Linux image of this CPU architecture.

``python -m daybreak_server.entrypoints.worker_bundle FOLDER``

The image of an engine, such as vLLM's, has its own Python with its own packages, or no Python at all. Its C library may
be too old for the worker. So the folder has everything that the worker needs, down to the dynamic loader:

    bin/daybreakd     the command, a shell script; ``/bin/sh`` is all that the image must have
    bin/python        starts the interpreter with the loader and the libraries of the folder
    lib/python3.x     the standard library, and the packages that the worker imports
    lib/native        the interpreter, the loader and the shared libraries

The command changes no environment variable, so the engines that the worker starts use the Python and the libraries of
their image. The worker still finds the libraries that only the machine has, such as NVIDIA's NVML.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

_IMPORTS = (
    "daybreak_server.cli.main",
    "daybreak_server.entrypoints.worker",
    "structlog.dev",
    "structlog.stdlib",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""The modules that a worker imports, at its start or later."""
_DISTRIBUTIONS = ("daybreak-server", "daybreak-sdk")
"""Daybreak's own distributions. ``packages_distributions`` does not list them if their installation is editable."""
_UNUSED = (
    "__phello__",
    "_test*",
    "_tkinter*",
    "config-*",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "*.a",
    "*.opt-?.pyc",
)
"""Files and folders of the standard library that no worker uses."""
_LIBRARY = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_PYTHON = """#!/bin/sh
# Isolated (-I), so that the packages and variables of the image's own Python have no effect.
native="${{0%/*}}/../lib/native"
exec "$native/{loader}" --library-path "$native" --argv0 "$0" "$native/python" -I "$@"
"""
_COMMAND = """#!/bin/sh
exec "${0%/*}/python" -c '
import sys
from daybreak_server.cli.main import run
sys.argv[0] = "daybreakd"
sys.exit(run())
' "$@"
"""


class BundleError(Exception):
    """The bundle cannot be made."""


def write_bundle(folder: Path) -> None:
    """Copy the worker and this process's Python into ``folder``. An earlier copy, even an incomplete one, is replaced.

    :raises BundleError: if the folder contains anything else, or if this Python cannot be copied.
    """
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    native = folder / "lib" / "native"
    if native.is_dir():
        shutil.rmtree(folder / "bin", ignore_errors=True)
        shutil.rmtree(folder / "lib")
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(f"{folder} is not empty; name another folder")
    native.mkdir(parents=True)
    unused = shutil.ignore_patterns(*_UNUSED)
    shutil.copytree(sysconfig.get_path("stdlib"), packages, ignore=unused, ignore_dangling_symlinks=True)
    for source in sorted(_sources()):
        target = packages / source.name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    interpreter = Path(sys.executable).resolve()
    shutil.copy2(interpreter, native / "python")
    loader = _copy_libraries([interpreter, *packages.rglob("*.so")], native)
    _write_program(folder / "bin" / "python", _PYTHON.format(loader=loader))
    _write_program(folder / "bin" / "daybreakd", _COMMAND)


def _sources() -> set[Path]:
    """The files and folders of the packages that a worker imports, with the libraries and metadata beside them."""
    for name in _IMPORTS:
        import_module(name)
    standard = Path(sysconfig.get_path("stdlib"))
    distributions = packages_distributions()
    found: set[Path] = set()
    for name, module in list(sys.modules.items()):
        if "." in name or name == "__main__":
            continue
        file = getattr(module, "__file__", None)
        paths = {Path(path) for path in getattr(module, "__path__", [file] if file else [])}
        if any(path.parent in {standard, standard / "lib-dynload"} for path in paths):
            continue
        found |= paths
        found |= {libraries for path in paths for libraries in path.parent.glob(f"{path.name}.libs")}
        found |= {
            folder for distribution in distributions.get(name, ()) for folder in _metadata(distribution)
        }
    return found.union(*map(_metadata, _DISTRIBUTIONS))


def _metadata(name: str) -> set[Path]:
    """The folder with the metadata of a distribution. Packages find their plug-ins and their version in it."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return set()
    return {
        Path(str(file.locate())).parent
        for file in files
        if file.name == "METADATA" and file.parent.suffix == ".dist-info"
    }


def _copy_libraries(programs: Iterable[Path], native: Path) -> str:
    """Copy the shared libraries that the programs need. :returns: the name of the loader."""
    loader = ""
    for program in programs:
        listed = subprocess.run(["ldd", program], text=True, capture_output=True, check=False).stdout
        for found in _LIBRARY.finditer(listed):
            path = Path(found["path"])
            name = Path(found["name"] or path).name
            if not found["name"]:
                loader = name
            if native.parent not in path.parents and not (native / name).exists():
                shutil.copy2(path, native / name)
    if not loader:
        raise BundleError(
            f"{sys.executable} uses no dynamic loader that `ldd` can find; use an image with glibc"
        )
    return loader


def _write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="ascii")
    path.chmod(0o755)


def main() -> int:
    """Write the folder that the command line names. :returns: the exit code."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m daybreak_server.entrypoints.worker_bundle FOLDER\n")
        return 2
    try:
        write_bundle(Path(sys.argv[1]))
    except (BundleError, OSError) as exc:
        sys.stderr.write(f"the worker cannot be copied: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
