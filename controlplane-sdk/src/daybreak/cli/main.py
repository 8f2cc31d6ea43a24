"""The command ``daybreak``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from daybreak.cli import models, tasks
from daybreak.cli.commands import CommandGroup
from daybreak.cli.exit_codes import exit_help
from daybreak.cli.generate import generate, submit
from daybreak.cli.global_options import GlobalOptions
from daybreak.cli.pools import pools
from daybreak.cli.speak import speak
from daybreak.cli.trace import trace
from daybreak.cli.workers import workers
from daybreak.version import VERSION

app = typer.Typer(
    name="daybreak",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(submit)
app.add_typer(tasks.app, name="tasks")
app.command()(trace)
app.command()(pools)
app.add_typer(models.app, name="models")
app.command()(workers)
app.command()(speak)


def _version(requested: bool) -> None:
    if requested:
        sys.stdout.write(f"daybreak {VERSION}\n")
        raise typer.Exit


@app.callback(epilog=exit_help())
def main(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The URL of the server.",
            show_default="DAYBREAK_URL, or http://127.0.0.1:8000",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Submit GPU jobs, follow every step, download the result. Serve models on demand. Translate speech.

    Examples:

    $ daybreak generate "a red circle moving left"

    $ daybreak tasks list --state running

    $ daybreak pools video

    $ daybreak models register small Qwen/Qwen3-0.6B

    $ daybreak speak --to German speech.wav
    """
    context.obj = GlobalOptions(url=url)


def run() -> None:
    """The entry point of the command ``daybreak``."""
    app()
