"""The command ``daybreakd``. Heavy imports are left to the command that needs them, so that help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from daybreak_server.cli.run import Program, fail, finish, open_streams, settings_of, write_out

app = typer.Typer(
    name="daybreakd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(no_args_is_help=True, help="Look after the folders of models.", rich_markup_mode=None)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings in YAML; the environment wins over them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_HELP = """Run Daybreak: a durable queue, groups of GPU workers, every step streamed.

\b
  daybreakd dev                           the light one: echo workload, no Ray, no torch
  daybreakd up                            everything on this machine, until Ctrl-C
  DAYBREAK_HTTP__PORT=9000 daybreakd up   settings are variables, nested by __ ...
  daybreakd up --config daybreak.yaml     ... or a file
  daybreakd settings                      all of them, with their values now
  daybreakd doctor                        what is not in order, and what to do about it

\b
Most used settings:
  DAYBREAK_REDIS__URL                     redis://..., absent: an embedded Valkey
  DAYBREAK_ARTIFACTS__URL                 file:///folder or s3://bucket/prefix
  DAYBREAK_POOLS__VIDEO__MODEL            a diffusers folder, absent: the tiny model
  DAYBREAK_POOLS__VIDEO__RANKS            processes (GPUs) that make one video together
  DAYBREAK_HTTP__PORT                     8000
"""
_EPILOG = """\b
Exit codes: 0 done, 1 failed or not in order, 2 wrong usage or settings, 130 interrupted.
Next: `daybreakd up`, then `daybreak generate "a red circle moving left"` (the client);
docs/00-overview.md tells the whole."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"daybreakd {version('daybreak-server')}\n")
        raise typer.Exit


@app.callback(help=_HELP, epilog=_EPILOG)
def main(
    context: typer.Context,
    config: Config = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """What all commands have in common."""
    context.obj = config


@app.command()
def up(context: typer.Context, config: Config = None) -> None:
    """Run everything on this machine until Ctrl-C.

    Valkey, Ray, the gateway, and the groups of each pool. What dies is started again, on the same
    port and data. Data, logs and tokens are below `data_dir`.
    """
    finish(Program("daybreak_server.local.up", "run_up"), settings_of(context, config))


@app.command()
def dev(context: typer.Context, config: Config = None) -> None:
    """Run the light one, without Ray and torch.

    Gateway, embedded Valkey and the echo workload in one process.
    """
    finish(Program("daybreak_server.local.dev", "run_dev"), settings_of(context, config))


@app.command()
def demo(context: typer.Context, config: Config = None) -> None:
    """Take one prompt to an MP4 in out/, then stop.

    Starts every part as `up` does, shows each step, and stops all that it started.
    """
    finish(Program("daybreak_server.local.demo", "run_demo"), settings_of(context, config))


@app.command()
def serve(
    context: typer.Context,
    config: Config = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="The head's address; `auto`: the Ray on this machine.")
    ] = "auto",
) -> None:
    """Deploy to the Ray cluster that is running.

    The API and the groups of each pool. All nodes must reach DAYBREAK_REDIS__URL and DAYBREAK_ARTIFACTS__URL.
    """
    settings = settings_of(context, config)
    if settings.redis.url is None:
        fail(("a cluster needs a Redis that all its nodes reach: set DAYBREAK_REDIS__URL",), code=2)
    finish(Program("daybreak_server.entrypoints.ray_serve", "deploy", {"address": address}), settings)


@app.command()
def gateway(context: typer.Context, config: Config = None) -> None:
    """Serve the HTTP API alone, without Ray.

    It takes tasks and shows them also while no worker runs.
    """
    settings = settings_of(context, config)
    if settings.redis.url is None:
        fail(("a gateway needs a Redis: set DAYBREAK_REDIS__URL, or run `daybreakd dev`",), code=2)
    finish(Program("daybreak_server.entrypoints.gateway", "run_gateway"), settings)


@app.command()
def operator(
    context: typer.Context,
    config: Config = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Whose GeneratorPools it keeps [its own, the kubeconfig's]"),
    ] = None,
    liveness_port: Annotated[
        int | None, typer.Option(help="/healthz for the kubelet; 0: none  [8080]", min=0, max=65535)
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="/metrics for Prometheus; 0: none  [9090]", min=0, max=65535)
    ] = None,
) -> None:
    """Keep the groups of each GeneratorPool on Kubernetes.

    It makes a RayCluster for each pool, adds and takes groups as spec.replicas says (KEDA writes it), drains
    before it takes, and renews group by group. In a pod it uses the service account, elsewhere KUBECONFIG.
    Exactly one may run for a namespace. It remembers nothing: end it whenever you like.
    """
    settings = settings_of(context, config)
    if settings.redis.url is None:
        fail(("an operator asks Redis who works: set DAYBREAK_REDIS__URL",), code=2)
    given = {"namespace": namespace, "liveness_port": liveness_port, "metrics_port": metrics_port}
    told = settings.operator.model_copy(update={key: one for key, one in given.items() if one is not None})
    settings = settings.model_copy(update={"operator": told})
    program = Program("daybreak_server.entrypoints.operator", "run_operator")
    finish(program, settings, workloads=False)


@app.command()
def settings(
    context: typer.Context,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show every setting and its value.

    Name, variable, type, default, value now, and what it is for. Passwords are masked.
    """
    from daybreak_server.cli.settings import as_object, as_text

    tree = settings_of(context, config)
    _print(as_object(tree) if as_json else as_text(tree))


@app.command()
def doctor(
    context: typer.Context,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say what is not in order, and what to do.

    Redis, models, store of files, port, GPUs, disk, packages. Exit code 1 when something is
    broken (✗); a warning (!) is none.
    """
    from daybreak_server.cli.doctor.report import as_lines, broken, examine

    checks = examine(settings_of(context, config))
    _print([check.as_object() for check in checks] if as_json else as_lines(checks))
    raise typer.Exit(1 if broken(checks) else 0)


@models.command("verify")
def verify_model(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder, with its model_index.json.")],
    as_json: Json = False,
) -> None:
    """Check the folder of a model, without torch.

    In a second: all files are there and whole, and the classes are those that can be loaded.
    """
    from daybreak_server.workloads.video.spec.verify import verify

    findings = verify(folder)
    wrong = any(finding.level == "error" for finding in findings)
    if as_json:
        _print([{"level": finding.level, "message": finding.message} for finding in findings])
    else:
        _print(_findings_table([(finding.level, finding.message) for finding in findings], folder, wrong))
    raise typer.Exit(1 if wrong else 0)


app.add_typer(models, name="models")


def _findings_table(findings: list[tuple[str, str]], folder: Path, wrong: bool) -> str:
    marks = {"error": "✗", "warning": "!", "info": "·"}
    lines = [f"{marks.get(level, '·')} {level:<8} {message}" for level, message in findings]
    lines.append(f"✗ {folder} cannot be loaded" if wrong else f"✓ {folder} can be loaded")
    return "\n".join(lines)


def _print(what: Any) -> None:
    if not isinstance(what, str):
        import json

        what = json.dumps(what, indent=2, ensure_ascii=False)
    write_out(what)


def run() -> None:
    """Entry point of the distribution."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ✓ shows ? instead of a traceback
    try:
        app()
    except KeyboardInterrupt:
        fail(("interrupted",), code=130)
