"""The commands ``daybreakd sessions …``. Each command imports what it needs only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daybreak_server.cli.run import fail, write_out

if TYPE_CHECKING:
    from daybreak_server.cli.sessions.evaluation.run import Options

Test = Literal["health", "single", "concurrent", "stream"]

sessions = typer.Typer(
    no_args_is_help=True,
    help="Streaming sessions: evaluate pools, and read InfiniSST's files.",
    rich_markup_mode=None,
)


@sessions.command()
def config(
    create_default: Annotated[
        Path | None, typer.Option("--create-default", metavar="PATH", help="Write a default file.")
    ] = None,
    show: Annotated[
        Path | None, typer.Option("--show", metavar="PATH", help="Print the file as Daybreak's settings.")
    ] = None,
    validate: Annotated[
        Path | None, typer.Option("--validate", metavar="PATH", help="Check the file.")
    ] = None,
) -> None:
    """Read and write configuration files of InfiniSST.

    \b
    The command reads a JSON file of the serving system or a YAML file of the scheduler.
    The default file is JSON. --show prints YAML.
      daybreakd sessions config --create-default serving.json
      daybreakd sessions config --show serving.json > daybreak.yaml
      daybreakd up --config daybreak.yaml
    Exit code 2: the file is wrong; the message names the field.
    """
    from daybreak_server.cli.sessions.infinisst_config.config_file import SessionsConfigError

    paths = [path for path in (create_default, show, validate) if path is not None]
    if len(paths) != 1:
        fail(("use exactly one of --create-default, --show and --validate",), code=2)
    try:
        write_out(_create(paths[0]) if create_default else _read(paths[0], show=show is not None))
    except SessionsConfigError as exc:
        fail((f"{paths[0]} is wrong", *exc.problems), code=2)


def _create(path: Path) -> str:
    from daybreak_server.cli.sessions.infinisst_config.config_file import default_config

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(default_config().as_json())
    except FileExistsError:
        fail((f"{path} exists already; choose another path, or remove it",), code=2)
    except OSError as exc:
        fail((f"cannot write {path}: {exc.strerror}",), code=1)
    return f"wrote {path}"


def _read(path: Path, *, show: bool) -> str:
    from daybreak_server.cli.sessions.infinisst_config.config_file import read_config
    from daybreak_server.cli.sessions.infinisst_config.mapping import settings_of

    config = read_config(path)
    meant = settings_of(config)
    if show:
        return meant.as_yaml().rstrip()
    pairs, notes = ", ".join(config.languages), "".join(f"\n  {note}" for note in meant.notes)
    return f"{path} is valid: {pairs}{notes}"


@sessions.command()
def evaluate(  # noqa: PLR0917 - typer passes them by name
    url: Annotated[str | None, typer.Option(help="The server [DAYBREAK_URL, http://127.0.0.1:8000]")] = None,
    pool: Annotated[
        str | None, typer.Option(help="A pool of the kind `sessions` [the only one]", show_default=False)
    ] = None,
    target: Annotated[str, typer.Option("--to", help="Language of the text.")] = "de",
    num_users: Annotated[int, typer.Option(min=1, max=1000, help="Users who speak at once.")] = 8,
    test_duration: Annotated[
        float, typer.Option(min=1, max=3600, metavar="S", help="Seconds of audio of each user.")
    ] = 30.0,
    basic_test_only: Annotated[bool, typer.Option("--basic-test-only", help="Skip the batch test.")] = False,
    batch_test_only: Annotated[
        bool, typer.Option("--batch-test-only", help="Only the batch test: sizes and timeouts.")
    ] = False,
    test: Annotated[Test | None, typer.Option(help="Only this test.")] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, max=32, help="A size for the batch test; repeatable  [1, 8, 32]"),
    ] = None,
    batch_timeout: Annotated[
        list[float] | None,
        typer.Option(min=0, metavar="MS", help="A timeout for the batch test; repeatable  [10, 100, 300]"),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path(
        "out/sessions-evaluation"
    ),
    charts: Annotated[bool, typer.Option("--charts/--no-charts", help="Draw charts (matplotlib).")] = True,
) -> None:
    """Measure how well, and how late, a pool translates for many users.

    \b
    Users speak in real time to a running server. Writes summary.json, README.md, user_test_charts.png and
    batch_test_heatmaps.png. The batch test changes how the pool forms batches, and at the end restores
    the former settings.
      daybreakd sessions evaluate --num-users 16 --test-duration 60
      daybreakd sessions evaluate --test stream
    Exit code 1: a test failed. More: docs/evaluating-sessions.md
    """
    if sum((basic_test_only, batch_test_only, test is not None)) > 1:
        fail(("use only one of --basic-test-only, --batch-test-only and --test",), code=2)
    from daybreak_server.cli.sessions.evaluation.run import (
        BATCH_SIZES,
        BATCH_TIMEOUTS_MS,
        USER_TESTS,
        Options,
    )

    batches = not (basic_test_only or test)
    options = Options(
        url=url,
        pool=pool,
        target=target,
        users=num_users,
        duration_s=test_duration,
        tests=() if batch_test_only else USER_TESTS if test is None else (test,),
        batch_sizes=(batch_size or BATCH_SIZES) if batches else (),
        batch_timeouts_ms=batch_timeout or BATCH_TIMEOUTS_MS,
    )
    _evaluate(options, out, charts=charts and test != "health")  # the health test has nothing to draw


def _evaluate(options: Options, out: Path, *, charts: bool) -> None:
    import asyncio
    from importlib.util import find_spec

    from daybreak_server.cli.sessions.evaluation import report
    from daybreak_server.cli.sessions.evaluation.run import evaluate
    from daybreak_server.cli.sessions.evaluation.server import EvaluationError
    from daybreak_server.local.console import say

    if charts and find_spec("matplotlib") is None:
        hint = "pip install 'daybreak-server[evaluate]', or add --no-charts"
        fail((f"matplotlib, which draws the charts, is not installed: {hint}",), code=1)
    try:
        evaluation = asyncio.run(evaluate(options, say))
        for path in report.write(evaluation, out, charts=charts):
            say(f"wrote {path}")
    except EvaluationError as exc:
        fail((str(exc),), code=1)
    except OSError as exc:
        fail((f"cannot write {out}: {exc}",), code=1)
    raise typer.Exit(0 if evaluation.passed else 1)
