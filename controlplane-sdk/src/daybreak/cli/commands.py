"""How ``daybreak`` starts and exits: streams that can write any character, errors on one line, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from daybreak.cli.exit_codes import Exit, message
from daybreak.cli.output import Output, abandon_streams, prepare_streams

# Typer bundles its own Click since 0.26; older versions use the installed Click. This finds the error class of the
# Click that Typer uses.
_ParseError: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


class CommandGroup(TyperGroup):
    """The root command. It prints errors on one line. Its exit code distinguishes a closed pipe from a failed task."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its code."""

        def run() -> Any:
            return super(CommandGroup, self).main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        arguments = sys.argv[1:] if args is None else args
        sys.exit(_exit_code_of(run, Output(as_json="--json" in arguments)))


def _exit_code_of(run: Callable[[], Any], output: Output) -> int:
    prepare_streams()
    try:
        code = _invoke(run, output)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # Typer itself raises SystemExit only for a closed pipe.
        code = Exit.PIPE
    except OSError as error:
        output.error(message(error), code=Exit.FILE.name.lower())
        code = Exit.FILE
    abandon_streams()
    return code


def _invoke(run: Callable[[], Any], output: Output) -> int:
    try:
        return int(run() or 0)
    except _ParseError as error:
        parse_error = cast("Any", error)
        text = " ".join(parse_error.format_message().split())
        if text:  # The text is empty if Typer has printed the help instead.
            context = getattr(parse_error, "ctx", None)
            command = context.command_path if context is not None else "daybreak"
            output.error(text, hint=f"See `{command} --help`.", code=Exit.USAGE.name.lower())
        return int(parse_error.exit_code)
    except typer.Abort:
        return Exit.INTERRUPTED
