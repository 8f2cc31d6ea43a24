"""``python -m daybreak_server.entrypoints.ray_start start …``: ``ray start`` of a pod, sooner.

The image puts it in the place of Ray's own ``ray start``, which KubeRay calls. It is Ray's own command with the same
options and the same output, and what a pod has no use for is left out:

- the other commands' modules (``ray serve``, ``ray job``, ``ray list``): a second of imports;
- the log monitor, which sends the ranks' output to drivers, of which there are none;
- waits: of the raylet for its agents (:mod:`~daybreak_server.adapters.ray.fast_start_node`) and for its own object store
  (:mod:`~daybreak_server.adapters.ray.fast_start_environment`).

Where :mod:`~daybreak_server.adapters.ray.fast_start` does not allow it, this process becomes Ray's own command: the
same arguments and environment, and one warning on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from daybreak_server.adapters.ray import fast_start
from daybreak_server.adapters.ray.fast_start_environment import QUICK
from daybreak_server.settings.early import fast_start_allowed

_OTHER_COMMANDS = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")
"""Ray's command does without them, as it must where Ray is installed without its extras."""
_EXTRAS = "ray.dashboard.optional_deps"
"""Imported only to see whether it can be, which takes 0.2 s more; the image has what it names."""
_DEFAULTS = {
    "--include-log-monitor": "false",
    # Below the ports that are given out at random, and none of Ray's or KubeRay's own.
    "--dashboard-agent-grpc-port": "8266",
    "--runtime-env-agent-port": "8267",
}


def with_defaults(options: Sequence[str]) -> list[str]:
    """The options of ``ray start``, and ours where they are not given."""
    given = {one.partition("=")[0] for one in options}
    return [*options, *(f"{name}={value}" for name, value in _DEFAULTS.items() if name not in given)]


def main(arguments: Sequence[str]) -> None:
    """Run Ray's command with these arguments; it ends the process."""
    environ = dict(os.environ)
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
    sys.argv = ["ray", command, *(with_defaults(options) if command == "start" else options)]
    ray_command()


def _prepare() -> list[str]:
    """Import what the fast start needs, without the rest. Returns what is wrong with it."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules.update(dict.fromkeys(_OTHER_COMMANDS))  # importing what is None is refused
    modules[_EXTRAS] = ModuleType(_EXTRAS)
    problems = fast_start.problems(fast_start.OF_THE_COMMAND)
    return problems or _options_that_are_missing()


def _options_that_are_missing() -> list[str]:
    """Of ``ray start``: those that :data:`_DEFAULTS` gives it."""
    from ray.scripts import scripts

    known = {option for parameter in scripts.start.params for option in parameter.opts}
    return [f"`ray start` no longer has {option}" for option in _DEFAULTS if option not in known]


def _become_stock(arguments: Sequence[str], environ: Mapping[str, str], reason: str) -> NoReturn:
    """Replace this process by Ray's own command. The one beside this Python: PATH may name ours first."""
    sys.stderr.write(f"daybreak: {fast_start.warning(reason)}\n")
    sys.stderr.flush()
    stock = Path(sys.executable).with_name("ray")
    os.execve(stock, ["ray", *arguments], dict(environ))


if __name__ == "__main__":
    main(sys.argv[1:])
