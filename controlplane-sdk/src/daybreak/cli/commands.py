"""How a run of the command begins and ends: streams that take any text, errors in one line, one exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from daybreak.cli.exit_codes import Exit, message
from daybreak.cli.output import Output, abandon_streams, prepare_streams

# typer has a Click of its own since 0.26 and shares the installed one before: this is the one that it raises.
_ParseError: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


class Commands(TyperGroup):
    """The commands of ``daybreak``. Errors are one line, and a closed pipe is not the code of a failed task."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and leave with its exit code."""

        def run() -> Any:
            return super(Commands, self).main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        given = sys.argv[1:] if args is None else args
        sys.exit(_code_of(run, Output(as_json="--json" in given)))


def _code_of(run: Callable[[], Any], output: Output) -> int:
    prepare_streams()
    try:
        code = _parsed(run, output)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer exits by itself for nothing but a closed pipe
        code = Exit.PIPE
    except OSError as error:
        output.error(message(error), code=Exit.FILE.name.lower())
        code = Exit.FILE
    abandon_streams()
    return code


def _parsed(run: Callable[[], Any], output: Output) -> int:
    try:
        return int(run() or 0)
    except _ParseError as error:
        found = cast("Any", error)
        words = " ".join(found.format_message().split())
        if words:  # none where typer has shown the help instead
            context = getattr(found, "ctx", None)
            path = context.command_path if context is not None else "daybreak"
            output.error(words, hint=f"`{path} --help` shows how.", code=Exit.USAGE.name.lower())
        return int(found.exit_code)
    except typer.Abort:
        return Exit.INTERRUPTED
