"""The part ``profile``: where the CPU time of Daybreak goes while callers embed texts.

py-spy samples the stacks of the threads that run, in the gateway and in the group. The first rule that a stack matches
names what it works on. The kernel knows how much CPU time each process used, so the shares of the samples become
milliseconds for each request.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from verification.benchmarks.competitors.contenders import ENVIRONMENTS
from verification.benchmarks.competitors.environments import install
from verification.benchmarks.embedding import bed, client
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import DAYBREAK, HERE
from verification.benchmarks.embedding.texts import texts
from verification.results import Report, Row

PROFILER = ENVIRONMENTS / "py-spy"
CLIENTS, PER_S = 32, 100
GATEWAY, GROUP = "gateway", "group"
GATEWAY_COMMAND, GROUP_COMMAND = "daybreak_server.entrypoints.gateway", "ray::ServeReplica"
RULES: Sequence[tuple[str, Sequence[str]]] = (
    ("model", ("embed/model.py",)),
    ("tokenising", ("text/tokens.py",)),
    ("JSON and base64", ("embed/answers.py", "text/requests.py", "json/")),
    ("batching", ("daybreak_server/batching/", "text/batches.py")),
    (
        "HTTP",
        (
            "uvicorn/",
            "engines/serving/",
            "starlette/",
            "fastapi/",
            "httptools",
            "h11/",
            "adapters/http",
            "api/",
        ),
    ),
    ("Redis", ("redis/",)),
)
REST = "other code"
ABOUT = (
    "Where the CPU time of a request goes: {clients} clients send one short text each, one after the other, through "
    "the gateway, with `eager` batches of at most 32 texts. py-spy samples the stacks of the gateway and of the group, "
    "{per_s} times a second; the kernel counts the CPU time of all processes. In all, a request takes {total:.2f} ms "
    "of CPU time, at {rate:.0f} requests/s; batches have {batch:.1f} texts on average."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """CPU milliseconds for each request, by process and what it works on."""

    parts: Mapping[tuple[str, str], float]
    rate: float
    mean_batch: float

    @property
    def total_ms(self) -> float:
        """Of all processes."""
        return sum(self.parts.values())


def what_of(stack: str) -> str:
    """What a stack works on. Its frames are separated by semicolons."""
    for what, files in RULES:
        if any(file in stack for file in files):
            return what
    return REST


def shares_of(raw: str) -> Counter[str]:
    """The number of samples by what they work on, from py-spy's format ``raw``: a stack and a count in each line."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            found[what_of(stack)] += int(count)
    return found


def measured(model: str, seconds: float) -> Profile:
    """Run Daybreak, and profile it. :raises subprocess.CalledProcessError: if py-spy cannot be installed."""
    install("py-spy", PROFILER, HERE / "requirements" / "py-spy.txt")
    with tempfile.TemporaryDirectory(prefix="embed-") as folder:
        running = bed.running(DAYBREAK, DAYBREAK.variants[0], folder=Path(folder), model=model)
        with running as server:
            requests = server.requests(texts("short"))
            client.load(server.port, requests, clients=CLIENTS, window=client.Window(seconds=1.0))
            kinds = {process.pid: _kind(process) for process in server.processes()}
            return _profile(server, kinds, requests, seconds, Path(folder))


def _profile(
    server: Server, kinds: Mapping[int, str], requests: Sequence[bytes], seconds: float, folder: Path
) -> Profile:
    profilers = {
        kind: _record(pid, seconds, folder / kind) for pid, kind in kinds.items() if kind in (GATEWAY, GROUP)
    }
    before, batches = server.cpu_s(), server.batches()
    samples = client.load(
        server.port, requests, clients=CLIENTS, window=client.Window(seconds=seconds, warm_s=0.2)
    )
    after, ended = server.cpu_s(), server.batches()
    count, items = ended[0] - batches[0], ended[1] - batches[1]
    used: Counter[str] = Counter()
    for pid, cpu_s in after.items():
        used[kinds.get(pid, "Ray and others")] += 1000 * (cpu_s - before.get(pid, 0.0)) / items
    parts: dict[tuple[str, str], float] = {}
    for kind, cpu_ms in used.items():
        shares = Counter({"": 1})
        if kind in profilers:
            profilers[kind].wait(60)
            shares = shares_of((folder / kind).read_text())
        for what, number in shares.items():
            parts[kind, what] = cpu_ms * number / shares.total()
    return Profile(parts=parts, rate=samples.rate, mean_batch=items / max(1, count))


def _kind(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        command = ""
    known = {GATEWAY_COMMAND: GATEWAY, GROUP_COMMAND: GROUP, "valkey-server": "Redis"}
    return next((kind for part, kind in known.items() if part in command), "Ray and others")


def _record(pid: int, seconds: float, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            str(PROFILER / "bin" / "py-spy"), "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))),
            "--rate", str(PER_S), "--format", "raw", "--full-filenames", "--nonblocking", "--output", str(path),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )  # fmt: skip


def report(found: Profile) -> Report:
    """The report."""
    about = ABOUT.format(
        clients=CLIENTS, per_s=PER_S, total=found.total_ms, rate=found.rate, batch=found.mean_batch
    )
    made = Report("embedding-profile", title="The CPU time of a request", about=about)
    for (kind, what), cpu_ms in sorted(found.parts.items(), key=lambda part: -part[1]):
        share = cpu_ms / found.total_ms
        made.add(
            Row(
                f"{kind}: {what}" if what else kind,
                round(cpu_ms, 3),
                "ms",
                note=f"{100 * share:.1f} %",
                detail=share < 0.005,
            )
        )
    return made
