"""The command ``daybreakd``. Each command imports what it needs when it runs, so that ``--help`` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from daybreak_server.cli.models import models
from daybreak_server.cli.run import Program, fail, finish, open_streams, settings_of, write_out
from daybreak_server.cli.sessions.commands import sessions

app = typer.Typer(
    name="daybreakd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Settings in YAML; environment variables override them."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_HELP = """Run Daybreak: a durable queue, groups of GPU processes, every step streamed.

\b
  daybreakd dev                           light mode: no Ray, no pools of the workload `video`
  daybreakd up                            everything on this machine, until Ctrl-C
  DAYBREAK_HTTP__PORT=9000 daybreakd up   settings are variables, nested by __ ...
  daybreakd up --config daybreak.yaml     ... or come from a file
  daybreakd worker                        vLLM, llama.cpp, ... on this machine, for a gateway
  daybreakd settings                      all settings and their current values
  daybreakd doctor                        what is wrong on this machine, and how to fix it

\b
Most used settings:
  DAYBREAK_REDIS__URL                     redis://... [an embedded Valkey]
  DAYBREAK_ARTIFACTS__URL                 file:///folder or s3://bucket/prefix
  DAYBREAK_POOLS__VIDEO__MODEL            a diffusers folder [the built-in tiny model]
  DAYBREAK_POOLS__VIDEO__RANKS            processes (GPUs) that make one video together
  DAYBREAK_HTTP__PORT                     [8000]
"""
_EPILOG = """\b
Exit codes: 0 success, 1 failure, 2 wrong usage or settings, 130 interrupted.
Next: `daybreakd up`, then `daybreak generate "a red circle moving left"` (the client).
Documentation: docs/00-overview.md"""


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        sys.stdout.write(f"daybreakd {version('daybreak-server')}\n")
        raise typer.Exit


@app.callback(help=_HELP, epilog=_EPILOG)
def main(
    context: typer.Context,
    config: Config = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Store the options that all commands share."""
    context.obj = config


@app.command()
def up(
    context: typer.Context,
    config: Config = None,
    observe: Annotated[
        bool,
        typer.Option(
            "--observe", help="Also run Prometheus, which must be installed, with Daybreak's alerts."
        ),
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Starts Valkey, Ray, the gateway and the groups of each pool. A process that dies is restarted with
    the same port and data. Data, logs and tokens are below `data_dir`.
    """
    program = Program("daybreak_server.local.up", "run_up", {"observe": observe})
    finish(program, settings_of(context, config))


@app.command()
def dev(context: typer.Context, config: Config = None) -> None:
    """Run in light mode: without Ray, and without pools of the workload `video`.

    The gateway and the groups run in one process; an embedded Valkey runs beside it. Torch is needed only for
    pools of the workloads `embed`, `rerank` and `speech`.
    """
    finish(Program("daybreak_server.local.dev", "run_dev"), settings_of(context, config))


@app.command()
def demo(context: typer.Context, config: Config = None) -> None:
    """Make one MP4 from a prompt, in the folder out/, then stop.

    Starts every process as `up` does, shows each step, and stops everything it started.
    """
    finish(Program("daybreak_server.local.demo_video", "run_demo"), settings_of(context, config))


@app.command("demo-speech")
def demo_speech(context: typer.Context, config: Config = None) -> None:
    """Translate speech while it is spoken, for one speaker and then for eight users at once, then stop.

    Starts a pool of the tiny speech model that the package contains. Shows how German and Chinese text
    grows word by word, how far the text lags, and the sizes of the batches that eight users share.
    """
    program = Program("daybreak_server.local.demo_speech.demo", "run_demo")
    finish(program, settings_of(context, config), workloads=False)


@app.command("demo-serve")
def demo_serve(
    context: typer.Context,
    config: Config = None,
    llama: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where llama.cpp is or will be installed (130 MB)  [llama in `data_dir`]",
        ),
    ] = None,
) -> None:
    """Serve a small chat model with two workers, kill one of them, then stop.

    Installs llama.cpp and SmolLM2-135M once. Starts a gateway and two workers, asks a model that no
    worker runs yet, balances requests, kills a worker, shows each step, and stops everything it started.
    """
    program = Program("daybreak_server.local.demo_serve.demo", "run_demo", {"llama": llama})
    finish(program, settings_of(context, config), workloads=False)


@app.command()
def serve(
    context: typer.Context,
    config: Config = None,
    address: Annotated[
        str,
        typer.Option(envvar="RAY_ADDRESS", help="Address of the Ray head; `auto`: the Ray on this machine."),
    ] = "auto",
) -> None:
    """Deploy to a running Ray cluster.

    Deploys the API and the groups of each pool. All nodes must reach DAYBREAK_REDIS__URL and DAYBREAK_ARTIFACTS__URL.
    """
    settings = settings_of(context, config)
    if settings.redis.url is None:
        fail(("`serve` needs a Redis that all nodes of the cluster reach: set DAYBREAK_REDIS__URL",), code=2)
    finish(Program("daybreak_server.entrypoints.ray_serve", "deploy", {"address": address}), settings)


@app.command()
def gateway(
    context: typer.Context,
    config: Config = None,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Also run an embedded Valkey, which keeps its data in `data_dir`."),
    ] = False,
) -> None:
    """Serve the HTTP API alone, without Ray.

    It accepts and shows tasks even while no group runs. With workers (`daybreakd worker`), it serves models.
    """
    settings = settings_of(context, config)
    if embedded:
        finish(Program("daybreak_server.local.gateway", "run_gateway"), settings)
    if settings.redis.url is None:
        fail(("`gateway` needs a Redis: set DAYBREAK_REDIS__URL, or add --embedded",), code=2)
    finish(Program("daybreak_server.entrypoints.gateway", "run_gateway"), settings)


@app.command()
def operator(
    context: typer.Context,
    config: Config = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace of the GeneratorPools [the pod's or kubeconfig's]"),
    ] = None,
    liveness_port: Annotated[
        int | None, typer.Option(help="Port of /healthz for the kubelet; 0: off  [8080]", min=0, max=65535)
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics for Prometheus; 0: off  [9090]", min=0, max=65535)
    ] = None,
) -> None:
    """Reconcile the GeneratorPools of a Kubernetes namespace.

    The operator creates a RayCluster for each pool, scales its groups to spec.replicas (which KEDA writes),
    drains a group before it removes it, and rolls out changes group by group. In a pod it uses the service
    account, elsewhere KUBECONFIG. Run exactly one operator for each namespace. It keeps no state of its own:
    you can stop or restart it at any time.
    """
    settings = settings_of(context, config)
    if settings.redis.url is None:
        fail(("`operator` reads the state of groups from Redis: set DAYBREAK_REDIS__URL",), code=2)
    options = {"namespace": namespace, "liveness_port": liveness_port, "metrics_port": metrics_port}
    overrides = {name: value for name, value in options.items() if value is not None}
    settings = settings.model_copy(update={"operator": settings.operator.model_copy(update=overrides)})
    program = Program("daybreak_server.entrypoints.operator", "run_operator")
    finish(program, settings, workloads=False)


@app.command()
def worker(  # noqa: PLR0917 - typer passes them by name
    context: typer.Context,
    manager_url: Annotated[
        str, typer.Option(envvar="MANAGER_URL", metavar="URL", help="A gateway, such as http://gateway:8000.")
    ],
    worker_id: Annotated[
        str | None,
        typer.Option(
            envvar="WORKER_ID", help="Name of this worker, which no other worker may have [the host's name]"
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(envvar="WORKER_HOST", help="Address to listen on; 0.0.0.0: all networks"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="WORKER_PORT", help="Port to listen on; 0: any", min=0, max=65535)
    ] = 7000,
    public_url: Annotated[
        str | None,
        typer.Option(
            envvar="PUBLIC_URL",
            metavar="URL",
            help="URL at which gateways reach this worker, if not at its host and port (port forward, HTTPS)",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Run model servers (vLLM, llama.cpp, SGLang, ...) on this machine for a gateway.

    \b
    The worker finds its GPUs, registers at the gateway, and starts the models that the gateway assigns to
    it. The worker and the gateway must reach each other over HTTP. The worker needs no Ray and no Redis.
    \b
      On one machine:  daybreakd worker --manager-url http://127.0.0.1:8000
      On another one:  export DAYBREAK_WORKERS__TOKEN=...     the same as the gateway's
                       daybreakd worker --manager-url http://gateway:8000 --host 0.0.0.0 --worker-id gpu-1
      Port forwarded:  ... --public-url https://gpu-1.example.com
    \b
    Each replica of a model is a process, which is restarted if it dies. Engines are the programs `vllm`,
    `llama-server` and `sglang` if they are on PATH, and those that you add in the settings:
      workers:
        engines:
          mine:
            command: my-server --model {source} --name {alias} --host {host} --port {port} {args}
            health: /health
    \b
    SIGTERM: the worker finishes its requests (within workers.drain_s), stops its engines and deregisters.
    However the worker ends, its engines end too. Exit code 1: the gateway refuses this worker, for example
    because another worker with the same name is alive. More: docs/09-workers.md
    """
    from daybreak_server.cli.worker import address_of

    address = address_of(worker_id, host=host, port=port, manager_url=manager_url, public_url=public_url)
    program = Program("daybreak_server.entrypoints.worker", "run_worker", {"address": address})
    finish(program, settings_of(context, config), workloads=False)


@app.command()
def settings(
    context: typer.Context,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show every setting and its current value.

    Lists name, variable, type, default, current value and purpose. Passwords are masked.
    """
    from daybreak_server.cli.settings import as_object, as_text

    tree = settings_of(context, config)
    _print(as_object(tree) if as_json else as_text(tree))


@app.command()
def routing(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="A pool of the kind `online`.")],
    policy: Annotated[
        str | None, typer.Argument(help="The policy, or `default` for the one in the settings.")
    ] = None,
    config: Config = None,
) -> None:
    """Show or change how a pool's requests are spread over its groups.

    All gateways apply a change within about a second. On one machine, run this command with the settings of
    `daybreakd up`. Elsewhere, set DAYBREAK_REDIS__URL.
    """
    from daybreak_server.cli.routing import change

    write_out(change(settings_of(context, config), pool, policy))


@app.command()
def doctor(
    context: typer.Context,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong on this machine, and say how to fix it.

    Checks packages, Redis, pools, workers and models, the blob store, port, disk, CPUs, GPUs and Kubernetes.
    Exit code 1 if there is an error (✗). Warnings (!) alone give 0.
    """
    from daybreak_server.cli.doctor.checks import as_lines, broken, examine

    checks = examine(settings_of(context, config))
    _print([check.as_object() for check in checks] if as_json else as_lines(checks))
    raise typer.Exit(1 if broken(checks) else 0)


app.add_typer(models, name="models")
app.add_typer(sessions, name="sessions")


def _print(result: Any) -> None:
    if not isinstance(result, str):
        import json

        result = json.dumps(result, indent=2, ensure_ascii=False)
    write_out(result)


def run() -> None:
    """Entry point of the command ``daybreakd``."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ✓ shows ?, without a traceback
    try:
        app()
    except KeyboardInterrupt:
        fail(("interrupted",), code=130)
