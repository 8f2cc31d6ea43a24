"""The commands ``daybreakd sessions …``. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daybreak_server.cli.run import fail, write_out

sessions = typer.Typer(
    no_args_is_help=True,
    help="Streaming sessions: read InfiniSST's configuration files.",
    rich_markup_mode=None,
)


@sessions.command()
def config(
    create_default: Annotated[
        Path | None, typer.Option("--create-default", metavar="PATH", help="Write a default file.")
    ] = None,
    show: Annotated[
        Path | None, typer.Option("--show", metavar="PATH", help="Print the settings that the file means.")
    ] = None,
    validate: Annotated[
        Path | None, typer.Option("--validate", metavar="PATH", help="Check the file.")
    ] = None,
) -> None:
    """Read and write configuration files of InfiniSST.

    \b
    It reads the JSON of the serving system and the YAML of the scheduler, and writes JSON.
      daybreakd sessions config --create-default serving.json
      daybreakd sessions config --show serving.json > daybreak.yaml
      daybreakd up --config daybreak.yaml
    Exit code 2: the file is wrong; the message names the field.
    """
    from daybreak_server.cli.sessions.config_file import ConfigFileError

    paths = [path for path in (create_default, show, validate) if path is not None]
    if len(paths) != 1:
        fail(("use exactly one of --create-default, --show and --validate",), code=2)
    try:
        write_out(_create(paths[0]) if create_default else _read(paths[0], show=show is not None))
    except ConfigFileError as exc:
        fail((f"{paths[0]} is wrong", *exc.problems), code=2)


def _create(path: Path) -> str:
    from daybreak_server.cli.sessions.config_file import default_config

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(default_config().as_json())
    except FileExistsError:
        fail((f"{path} exists already; choose another path, or remove it",), code=2)
    except OSError as exc:
        fail((f"cannot write {path}: {exc.strerror}",), code=1)
    return f"wrote {path}"


def _read(path: Path, *, show: bool) -> str:
    from daybreak_server.cli.sessions.config_file import read_config
    from daybreak_server.cli.sessions.mapping import settings_of

    config = read_config(path)
    meant = settings_of(config)
    if show:
        return meant.as_yaml().rstrip()
    pairs, notes = ", ".join(config.languages), "".join(f"\n  {note}" for note in meant.notes)
    return f"{path} is valid: {pairs}{notes}"
