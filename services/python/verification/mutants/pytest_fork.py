"""Runs pytest in a fork of a process that has already imported pytest and the libraries.

Without this, a short test would spend most of its time on these imports. The fork server imports no module that may
have a planted bug. The fork imports such modules itself, from a copy of the source.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit import forkserver
from verification.mutants.tree import REPOSITORY

_LIBRARIES = (
    "pytest",
    "_pytest.python_api",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "xdist.plugin",
    "xdist.looponfail",
    "hypothesis.stateful",
    "_hypothesis_pytestplugin",
    "_hypothesis_globals",
    "anyio.pytest_plugin",
    "asyncio",
    "psutil",
    "redis.asyncio",
    "pydantic_settings",
    "fastapi.testclient",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx2",
    "jinja2",
    "opentelemetry.sdk.trace",
    "prometheus_client",
    "yaml",
    "boto3",
    "websockets.sync.client",
)
"""What many tests import, except libraries such as torch that read environment variables when they are imported. A
module that is not installed is skipped."""
_OURS = frozenset({"verification", "testkit"})
"""Packages of which the fork server's processes import modules before pytest runs."""
_KILL_AFTER_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a run of pytest ended. ``code`` is negative after a signal."""

    code: int
    timed_out: bool
    output: str


def run_pytest(root: Path, path: Sequence[Path], arguments: Sequence[str], *, limit_s: float) -> Ran:
    """Run pytest in the folder ``root``. After ``limit_s`` seconds, end it and the processes of its process group.

    :param path: Folders from which the tests, and processes that they start, import before all others.
    """
    context = forkserver.context(*_LIBRARIES)
    with tempfile.NamedTemporaryFile(prefix="daybreak-mutant-") as output:
        process = context.Process(target=_main, args=(root, path, arguments, output.name))
        process.start()
        process.join(limit_s)
        timed_out = process.exitcode is None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.exitcode is None and process.pid is not None:
                _end_group(process.pid, number)
                process.join(_KILL_AFTER_S)
        code = process.exitcode
        process.close()
        assert code is not None
        return Ran(code=code, timed_out=timed_out, output=Path(output.name).read_text(errors="replace"))


def _end_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:  # it has just ended, or has not made its group yet
        os.kill(leader, number)


def _main(root: Path, path: Sequence[Path], arguments: Sequence[str], output: str) -> None:
    """Run pytest. This is the whole work of a fork."""
    os.setpgid(0, 0)
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(root)
    folders = [str(folder) for folder in path]
    os.environ |= {"PYTHONPATH": ":".join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sources = REPOSITORY / "services" / "python"
    kept = [entry for entry in sys.path if Path(entry or ".").resolve() != sources]
    sys.path[:] = [str(root), *folders, *kept]
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]
    import pytest

    ignored = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    sys.exit(pytest.main(["-W", ignored, *arguments]))
