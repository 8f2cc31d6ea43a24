"""Starts the servers, and reads their CPU time, memory and batches while they run."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from daybreak_server.local import reaper
from daybreak_server.local.free_ports import free_port
from daybreak_server.local.instance import instance_tag
from daybreak_server.settings.tree import child_environment
from testkit.system import System, kill_tree
from testkit.waiting import wait_until
from verification.benchmarks.competitors.contenders import PYTHONPATH
from verification.benchmarks.embedding import client
from verification.benchmarks.embedding.apps import common
from verification.benchmarks.embedding.contenders import US, Contender, Place, Variant
from verification.benchmarks.http.parts import raise_priority

START_S = 240.0
"""A compiled model takes long to start."""
END_S = 20.0
HELLO = "Good morning."


@dataclass(slots=True)
class Server:
    """A running server: Daybreak or a peer."""

    contender: Contender
    variant: Variant
    port: int
    folder: Path
    system: System | None = None
    """Daybreak; ``None`` for a peer."""
    process: subprocess.Popen[bytes] | None = None
    """The process of a peer; ``None`` for Daybreak."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.contender.name

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def request(self, text: str, *, encoding: str = "base64") -> bytes:
        """The bytes of a request."""
        return client.render(text, encoding=encoding, model=self.contender.model, path=self.contender.path)

    def requests(self, texts: Sequence[str], *, encoding: str = "base64") -> list[bytes]:
        """The bytes of requests."""
        return [self.request(text, encoding=encoding) for text in texts]

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        if self.process is not None:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        assert self.system is not None
        found = []
        for pid in {self.system.process.pid, *reaper.tagged(instance_tag(self.system.folder))}:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def cpu_s(self) -> dict[int, float]:
        """The CPU seconds that each of its processes has used."""
        used = {}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        return used

    def rss_bytes(self) -> int:
        """Its resident memory."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def batches(self) -> tuple[int, int]:
        """The number of batches that the server has computed, and the number of items in them."""
        if self.system is None:
            return common.read_counts(self.folder / "counts")
        sizes = httpx2.get(f"{self.url}/debug").json()["batches"]
        return sum(sizes.values()), sum(int(size) * count for size, count in sizes.items())

    def use(self, variant: Variant) -> None:
        """Change the settings of Daybreak's batches while Daybreak runs."""
        with httpx2.Client(base_url=self.url, timeout=60) as http:
            http.patch("/v1/pools/embed/batching", json=dict(variant.change)).raise_for_status()
            wait_until(
                lambda: http.get("/debug").json()["batching"].items() >= variant.change.items(),
                30,
                f"{variant.what}",
            )
        self.variant = variant


def added(before: dict[int, float], after: dict[int, float]) -> float:
    """The CPU seconds that the processes used between two readings."""
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


@contextmanager
def running(contender: Contender, variant: Variant, *, folder: Path, model: str) -> Iterator[Server]:
    """Run a server until the ``with`` block ends.

    :raises RuntimeError: with the server's log, if the server ends or does not answer in time.
    """
    place = Path(tempfile.mkdtemp(prefix="s", dir=folder))
    start = _daybreak if contender.name == US else _peer
    with start(contender, variant, place, model) as server:
        for process in server.processes():  # one by one, because some are in Unix sessions of their own
            raise_priority(process.pid)
        yield server


@contextmanager
def _daybreak(contender: Contender, variant: Variant, place: Path, model: str) -> Iterator[Server]:
    system = System(
        "up",
        place / "d",
        HOME=str(place),
        DAYBREAK_POOLS__EMBED__MODEL=model,
        DAYBREAK_POOLS__EMBED__DEVICE="cpu",
        DAYBREAK_POOLS__EMBED__OPTIONS='{"too_long": "cut"}',
    )
    try:
        url = system.ready(START_S)["url"]
        server = Server(contender, variant, int(url.rsplit(":", 1)[1]), place, system=system)
        client.vectors(server.port, [server.request(HELLO)])
        server.use(variant)
        yield server
    finally:
        system.end()


@contextmanager
def _peer(contender: Contender, variant: Variant, place: Path, model: str) -> Iterator[Server]:
    port, log = free_port(), place / "log"
    command = contender.command(Place(port=port, folder=place, model=model), variant)
    variables = {
        "PYTHONPATH": str(PYTHONPATH),
        "PATH": f"{contender.programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(place),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ADDRESS": "",
        common.MODEL: model,
        common.COUNTS: str(place / "counts"),
        common.MAX_BATCH: str(variant.max_batch),
        common.WAIT_MS: str(variant.wait_ms),
        **dict(contender.variables),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(contender.programs / "python"), *command],
            env=child_environment(variables),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = Server(contender, variant, port, place, process=process)
    try:
        _wait(server, log)
        yield server
    finally:
        kill_tree(process)


def _wait(server: Server, log: Path) -> None:
    """Wait for the first vector."""
    until = time.monotonic() + START_S
    while True:
        with suppress(OSError, client.AnswerError):
            client.vectors(server.port, [server.request(HELLO)])
            return
        assert server.process is not None
        code = server.process.poll()
        if code is not None or time.monotonic() > until:
            why = f"did not answer within {START_S:g} s" if code is None else f"ended with exit code {code}"
            raise RuntimeError(f"{server.name} {why}:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)
