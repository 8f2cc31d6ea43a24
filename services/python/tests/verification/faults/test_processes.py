"""The client of the fork server notices at once that the fork server has ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from verification.faults.components import Component
from verification.faults.processes import Processes


def interpreter(tmp_path: Path, script: str) -> str:
    """A program to run instead of Python. Its arguments are ``-m MODULE SOCKET …``."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/bash\nsocket=$3\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_a_fork_server_that_dies_at_its_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The constructor raises an error as soon as the socket is closed.

    In this test, the fork server closes its socket, and its process still runs.
    """
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, 'eval "exec $socket>&-"; exec sleep 60'))
    with pytest.raises(RuntimeError, match=r"the fork server did not start; see .*fork-server.log"):
        Processes(logs=tmp_path)


def test_a_fork_server_that_dies_later_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Processes.start`` does not wait for an answer that cannot come.

    In this test, the fork server ends when it has read the request. If it ended earlier, the constructor of
    ``Processes`` might already raise an error.
    """
    script = 'eval "echo \'{\\"ready\\": 1}\' >&$socket; read -r <&$socket"'
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))
    processes = Processes(logs=tmp_path)
    with pytest.raises(RuntimeError, match=r"the fork server has ended; see .*fork-server.log"):
        processes.start(Component(kind="gateway", name="gateway-0", folder=str(tmp_path)))
    processes.close()
