"""The part ``profile`` of the benchmark shows how Daybreak spends its CPU time while callers embed texts.

The kernel counts the CPU time of each thread, and py-spy reads the names of the group's threads only once, at the end.
So the measurement does not slow the processes down. The threads of requests do three kinds of work: tokenising, JSON,
and passing requests between threads. The time of the first two kinds is measured separately, with the same code and
texts. All other time of these threads counts as the third kind.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from daybreak_server.workloads.embed.answers import answer, read_openai
from daybreak_server.workloads.serving import Request
from daybreak_server.workloads.text_batches.tokens import TextTokenizer
from verification.benchmarks.competitors.contenders import ENVIRONMENTS
from verification.benchmarks.competitors.environments import install
from verification.benchmarks.embedding import client
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import DAYBREAK, HERE
from verification.benchmarks.embedding.texts import texts
from verification.results import Report, Row

T = TypeVar("T")
PROFILER = ENVIRONMENTS / "py-spy"
CLIENTS = 32
SETTLE_S = 5.0
GROUP, OTHERS = "ray::ServeReplica:embed", "Ray and the other processes"
PROCESSES = {"daybreak_server.entrypoints.gateway": "gateway: HTTP and routing", "valkey-server": "Redis"}
"""The kind of work of a process. The key is a part of the command of the process."""
THREADS = {"batches": "group: model", "http": "group: HTTP", "request-": "group: requests"}
"""The kind of work of a thread of the group. The key is the name of the thread without the number at its end."""
REQUESTS, TOKENISING, JSON_PARTS = "group: requests", "group: tokenising", "group: JSON and base64"
HANDED = "group: passing requests between threads"
ABOUT = (
    "The table shows where the CPU time of a request goes. Each of {clients} clients sends one short text at a time, "
    "through the gateway, with `eager` batches of at most 32 texts. The kernel counts the time of each thread. *Model* "
    "is the thread that forms the batches and runs them. Tokenising and JSON are timed separately, with the same code "
    "and texts. A request takes {total:.2f} ms of CPU time in all, at {rate:.0f} requests/s; batches have {batch:.1f} "
    "texts on average."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """CPU milliseconds for each request, by kind of work."""

    parts: Mapping[str, float]
    rate: float
    mean_batch: float

    @property
    def total_ms(self) -> float:
        """The CPU milliseconds of all kinds of work together."""
        return sum(self.parts.values())


def measured(server: Server, model: str, seconds: float) -> Profile:
    """Profile the running Daybreak. :raises subprocess.CalledProcessError: if py-spy cannot be installed."""
    install("py-spy", PROFILER, HERE / "requirements" / "py-spy.txt")
    chosen = texts("short")
    alone = {TOKENISING: tokenising_ms(model, chosen), JSON_PARTS: json_ms(chosen)}
    server.use(DAYBREAK.variants[0])
    requests = server.requests(chosen)
    client.load(server.port, requests, clients=CLIENTS, window=client.Window(seconds=1.0))
    time.sleep(SETTLE_S)
    before, batches = _cpu_ms(server), server.batches()
    window = client.Window(seconds=seconds, warm_s=0.2)
    samples = client.load(server.port, requests, clients=CLIENTS, window=window)
    after, ended = _cpu_ms(server), server.batches()
    names = _names(server)
    count, items = ended[0] - batches[0], ended[1] - batches[1]
    used: Counter[str] = Counter()
    for key, cpu_ms in after.items():
        used[_what(key, names)] += (cpu_ms - before.get(key, 0.0)) / items
    return Profile(parts=split(used, alone), rate=samples.rate, mean_batch=items / max(1, count))


def split(used: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, float]:
    """Divide the time of the request threads into the kinds of work that were timed separately (``alone``), and the
    rest."""
    parts = {what: cpu_ms for what, cpu_ms in used.items() if what != REQUESTS}
    rest = used.get(REQUESTS, 0.0) - sum(alone.values())
    return {**parts, **alone, HANDED: max(0.0, rest)}


def tokenising_ms(model: str, chosen: list[str]) -> float:
    """CPU milliseconds for tokenising a text, as the group does it."""
    from transformers import AutoTokenizer

    tokenizer = TextTokenizer(
        AutoTokenizer.from_pretrained(model, local_files_only=True), max_tokens=256, cut=True
    )
    return _timed_ms(lambda text: tokenizer.texts([text], ["input"]), chosen)


def json_ms(chosen: list[str]) -> float:
    """CPU milliseconds for reading a request and writing its answer, as the group does it."""
    vector = np.linspace(-0.1, 0.1, 384, dtype=np.float32)

    def both(body: bytes) -> None:
        request = Request(method="POST", path="/v1/embeddings", body=body)
        wanted = read_openai(request, max_inputs=2048, dimensions=384)
        answer(wanted, [vector], model="minilm", tokens=9, cut=[])

    bodies = [json.dumps({"input": text, "encoding_format": "base64"}).encode() for text in chosen]
    return _timed_ms(both, bodies)


def _timed_ms(work: Callable[[T], Any], chosen: Sequence[T]) -> float:
    for item in chosen:
        work(item)
    began = time.process_time()
    for item in chosen:
        work(item)
    return 1000 * (time.process_time() - began) / len(chosen)


def _cpu_ms(server: Server) -> dict[tuple[str, int], float]:
    """The CPU milliseconds that each thread of the group and each other process has used so far."""
    found = {}
    for process in server.processes():
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            command = " ".join(process.cmdline())
            if GROUP in command:
                for thread in process.threads():
                    ran = Path(f"/proc/{process.pid}/task/{thread.id}/schedstat").read_text().split()[0]
                    found[GROUP, thread.id] = int(ran) / 1e6
            else:
                used = process.cpu_times()
                found[command, process.pid] = 1000 * (used.user + used.system)
    return found


def _names(server: Server) -> dict[int, str]:
    """The names of the group's threads, by the kernel's ids."""
    pid = next(process.pid for process in server.processes() if GROUP in " ".join(process.cmdline()))
    command = [str(PROFILER / "bin" / "py-spy"), "dump", "--pid", str(pid), "--json"]
    dump = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return {thread["os_thread_id"]: thread["thread_name"] or "" for thread in json.loads(dump)}


def _what(key: tuple[str, int], names: Mapping[int, str]) -> str:
    command, number = key
    if command != GROUP:
        return next((what for part, what in PROCESSES.items() if part in command), OTHERS)
    name = re.sub(r"\d+$", "", names.get(number, ""))
    return THREADS.get(name, "group: other threads")


def report(found: Profile) -> Report:
    """The report on a profile."""
    about = ABOUT.format(clients=CLIENTS, total=found.total_ms, rate=found.rate, batch=found.mean_batch)
    made = Report("embedding-profile", title="The CPU time of a request", about=about)
    for what, cpu_ms in sorted(found.parts.items(), key=lambda part: -part[1]):
        made.add(Row(what, round(cpu_ms, 3), "ms", note=f"{100 * cpu_ms / found.total_ms:.1f} %"))
    return made
