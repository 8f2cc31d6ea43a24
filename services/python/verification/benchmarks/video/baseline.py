"""Starts ``bare_loop.py`` once, under ``torchrun``, and runs tasks on it, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from verification.faults.system.up import CPU_ENVIRONMENT

HERE = Path(__file__).parent


class TorchrunLoop:
    """``torchrun`` with ``ranks`` processes that hold the model. Use it as a context manager."""

    def __init__(self, *, ranks: int, options: Mapping[str, Any]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="daybreak-bare-"))
        self._ranks = ranks
        self._options = {**options, "preview_every": 0}

    def __enter__(self) -> Self:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._ranks}"]
        log = self._folder / "log"
        with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
            program = [str(HERE / "bare_loop.py"), str(listener.getsockname()[1]), json.dumps(self._options)]
            self.process = subprocess.Popen(
                [sys.executable, *launcher, *program],
                env={**os.environ, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            listener.settimeout(1.0)
            sock = None
            while sock is None:
                with contextlib.suppress(TimeoutError):
                    sock, _ = listener.accept()
                if self.process.poll() is not None:
                    raise RuntimeError(f"torchrun ended:\n{log.read_text(errors='replace')[-4000:]}")
        self._stream = sock.makefile("rw")
        sock.close()
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, params: Mapping[str, Any]) -> tuple[float, str]:
        """Run one task. :returns: how many seconds the loop took on rank 0, and the SHA-256 of the MP4."""
        self._stream.write(json.dumps(params) + "\n")
        self._stream.flush()
        reply = self._read()
        return float(reply["s"]), str(reply["sha256"])

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            log = self._folder / "log"
            raise RuntimeError(f"torchrun ended:\n{log.read_text(errors='replace')[-4000:]}")
        return dict(json.loads(line))
