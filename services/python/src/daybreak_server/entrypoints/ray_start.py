"""``python -m daybreak_server.entrypoints.ray_start start …``: a faster ``ray start`` for pods.

KubeRay calls ``ray start`` in its pods. In the image, this call runs this module. The module runs Ray's own command
with the same options and the same output, but leaves out what a pod does not need:

- the modules of the other commands (``ray serve``, ``ray job``, ``ray list``), which take a second to import;
- the log monitor, which sends the output of ranks to drivers: a pod has no driver;
- on a head, Ray's autoscaler, which Daybreak's operator replaces, and the server for Ray clients, which nothing in
  Daybreak uses. They would take 1.6 s of CPU time and 110 MB of memory;
- the time that the raylet waits for its agents (:mod:`~daybreak_server.adapters.ray.fast_start_node`) and for its own
  object store (:mod:`~daybreak_server.adapters.ray.fast_start_environment`).

If :mod:`~daybreak_server.adapters.ray.fast_start` does not allow a fast start, this process replaces itself with Ray's
own command, with the same arguments and environment, and prints one warning on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from daybreak_server.adapters.ray import fast_start
from daybreak_server.adapters.ray.fast_start_environment import FAST_START_ENVIRONMENT
from daybreak_server.settings.fast_start_setting import fast_start_allowed

_OTHER_COMMANDS = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")
"""Ray's command works without these modules, because Ray can be installed without its extras."""
_EXTRAS = "ray.dashboard.optional_deps"
"""Ray imports this module only to check that the packages of its dashboard are installed, which takes 0.2 s. The image
has these packages."""
_DEFAULTS = {
    "--include-log-monitor": "false",
    # These ports are below the ephemeral ports, and neither Ray nor KubeRay uses them.
    "--dashboard-agent-grpc-port": "8266",
    "--runtime-env-agent-port": "8267",
}


_NO_AUTOSCALER = "--no-monitor"
_CLIENT_SERVER = "--ray-client-server-port"


def with_defaults(options: Sequence[str]) -> list[str]:
    """The options of ``ray start``, with our defaults for those that are missing."""
    present = _names(options)
    defaults = [f"{name}={value}" for name, value in _DEFAULTS.items() if name not in present]
    if "--head" in present and _NO_AUTOSCALER not in present:
        defaults.append(_NO_AUTOSCALER)
    return [*options, *defaults]


def serves_clients(options: Sequence[str]) -> bool:
    """Whether a head starts the server for Ray clients: only if its port is given."""
    return _CLIENT_SERVER in _names(options)


def _names(options: Sequence[str]) -> set[str]:
    return {option.partition("=")[0] for option in options}


def main(arguments: Sequence[str]) -> None:
    """Run Ray's command with these arguments. The command ends the process."""
    environ = dict(os.environ)  # noqa: TID251 - Ray's variables, passed on to Ray unchanged
    allowed, version = fast_start_allowed(environ), fast_start.installed_version()
    reason = fast_start.reason_for_stock_start(allowed=allowed, version=version)
    if reason is not None:
        _become_stock(arguments, environ, reason)
    problems = _prepare()
    reason = fast_start.reason_for_stock_start(allowed=allowed, version=version, problems=problems)
    if reason is not None:
        _become_stock(arguments, environ, reason)
    import ray._private.node
    from ray.scripts.scripts import main as ray_command

    from daybreak_server.adapters.ray.fast_start_node import FastStartNode

    ray._private.node.Node = FastStartNode
    command, *options = arguments or ["--help"]
    FastStartNode.serves_clients = serves_clients(options)
    sys.argv = ["ray", command, *(with_defaults(options) if command == "start" else options)]
    ray_command()


def _prepare() -> list[str]:
    """Import what the fast start needs, and nothing else. :returns: the reasons against a fast start."""
    for name, value in FAST_START_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - for the programs that Ray starts
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules.update(dict.fromkeys(_OTHER_COMMANDS))  # importing a module that is None here raises ImportError
    modules[_EXTRAS] = ModuleType(_EXTRAS)
    problems = fast_start.problems(fast_start.RAY_START_PARTS)
    return problems or _missing_options()


def _missing_options() -> list[str]:
    """One problem for each of our default options that ``ray start`` lacks."""
    from ray.scripts import scripts

    known = {option for parameter in scripts.start.params for option in parameter.opts}
    return [
        f"`ray start` no longer has {option}"
        for option in (*_DEFAULTS, _NO_AUTOSCALER)
        if option not in known
    ]


def _become_stock(arguments: Sequence[str], environ: Mapping[str, str], reason: str) -> NoReturn:
    """Replace this process with Ray's own ``ray``, which is in the folder of this Python.

    The first ``ray`` on PATH may be Daybreak's.
    """
    sys.stderr.write(f"daybreak: {fast_start.warning(reason)}\n")
    sys.stderr.flush()
    stock = Path(sys.executable).with_name("ray")
    os.execve(stock, ["ray", *arguments], dict(environ))  # noqa: S606 - a program, not a shell


if __name__ == "__main__":
    main(sys.argv[1:])
