"""Measures the servers in short turns, in random order. So a slow moment of the machine does not affect one server
alone."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from verification.benchmarks.embedding import bed, client
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import Contender, Variant
from verification.benchmarks.embedding.texts import KINDS, outlier, texts

SAME = 1e-4
"""How much a number in one server's vector may differ from the same number in another server's vector."""
CHECKED = 16
"""The number of texts of each kind whose vectors are compared."""
TUNED_WITH = 32
OUTLIER_CLIENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much to measure."""

    rounds: int
    seconds: float
    tuned_s: float
    """Each setting is tried for this many seconds with short texts, and then for the same time with mixed texts. If 0,
    each server runs with its first setting."""
    outlier_s: float
    clients: Sequence[int] = (1, 8, 32, 64)
    kinds: Sequence[str] = tuple(KINDS)


FULL = Effort(rounds=2, seconds=2.0, tuned_s=1.5, outlier_s=3.0)
QUICK = Effort(rounds=1, seconds=0.8, tuned_s=0.0, outlier_s=1.5, clients=(1, 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The figures of one server over some seconds. ``cpu_ms``: CPU time of all processes of the server, per answer."""

    rate: float
    p50_ms: float
    p95_ms: float
    mean_batch: float
    cpu_ms: float
    client_busy: float


@dataclass(slots=True)
class Figures:
    """The measurements, by server."""

    turns: dict[tuple[str, int, str], list[Turn]] = field(default_factory=dict)
    """The turns. Each key has the kind of text, the number of clients and the name of the server."""
    numbers: dict[str, list[Turn]] = field(default_factory=dict)
    """Turns with short texts, in which the servers answer with lists of numbers instead of base64."""
    calm: dict[str, list[Turn]] = field(default_factory=dict)
    """Turns with short texts, before a client sends outliers (texts of 8,000 tokens)."""
    outliers: dict[str, list[Turn]] = field(default_factory=dict)
    """Turns with short texts, while one more client sends outliers."""
    rss_mib: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Resident memory before the first outliers and after the last ones."""
    idle: dict[str, float] = field(default_factory=dict)
    """The share of one core that a server uses while it has no requests."""
    differences: dict[str, float] = field(default_factory=dict)
    """The largest difference between a number in a server's vectors and the same number in Daybreak's vectors."""
    chosen: dict[str, Variant] = field(default_factory=dict)
    tried: dict[tuple[str, str], float] = field(default_factory=dict)
    """For each server and setting: the geometric mean of the rate with short texts and the rate with mixed texts."""

    def servers(self) -> list[str]:
        """The names of the servers, in the order in which the settings were chosen."""
        return list(self.chosen)


def show(*what: object) -> None:
    """Print the progress of the run."""
    print(*what, file=sys.stderr, flush=True)


def tune(
    ours: Server, contenders: Sequence[Contender], effort: Effort, folder: Path, model: str, figures: Figures
) -> None:
    """Try the settings of each server, and keep the best. Settings with which a server fails are left out."""
    for contender in contenders:
        if not effort.tuned_s:
            figures.chosen[contender.name] = contender.variants[0]
            continue
        for variant, server in _each_variant(ours, contender, folder, model):
            rates = [
                turn(server, kind, TUNED_WITH, seconds=effort.tuned_s, figures=None).rate
                for kind in ("short", "mixed")
            ]
            figures.tried[contender.name, variant.what] = float(np.sqrt(np.prod(rates)))
            show(f"{contender.name}, {variant.what}: {rates[0]:.0f} short, {rates[1]:.0f} mixed requests/s")
        tried = {
            variant.what: variant
            for variant in contender.variants
            if (contender.name, variant.what) in figures.tried
        }
        if tried:
            best = max(tried, key=lambda what: figures.tried[contender.name, what])
            figures.chosen[contender.name] = tried[best]


def _each_variant(
    ours: Server, contender: Contender, folder: Path, model: str
) -> Iterator[tuple[Variant, Server]]:
    if contender is ours.contender:
        for variant in contender.variants:
            ours.use(variant)
            yield variant, ours
        return
    for variant in contender.variants:
        try:
            with bed.running(contender, variant, folder=folder, model=model) as server:
                yield variant, server
        except RuntimeError as exc:
            show(f"{contender.name}, {variant.what}, is left out: {exc}")


def start(
    stack: ExitStack,
    ours: Server,
    contenders: Sequence[Contender],
    folder: Path,
    model: str,
    figures: Figures,
) -> list[Server]:
    """Start each peer with its chosen setting, and leave out peers that do not start. Daybreak already runs.
    It is the first server in the result."""
    ours.use(figures.chosen[ours.name])
    servers = [ours]
    for contender in contenders:
        variant = figures.chosen.get(contender.name)
        if variant is None or contender is ours.contender:
            continue
        try:
            servers.append(stack.enter_context(bed.running(contender, variant, folder=folder, model=model)))
            show(f"{contender.name} runs with {variant.what}")
        except RuntimeError as exc:
            show(f"{contender.name} is left out: {exc}")
            figures.chosen.pop(contender.name)
    return servers


def compare(servers: Sequence[Server], figures: Figures) -> None:
    """Check that all servers return the same vectors as the first one. :raises RuntimeError: if the vectors differ."""
    chosen = [text for kind in KINDS for text in texts(kind)[:CHECKED]] + [outlier()]
    ours = client.vectors(servers[0].port, servers[0].requests(chosen))
    for server in servers[1:]:
        for encoding in ("base64", "float"):
            found = client.vectors(server.port, server.requests(chosen, encoding=encoding))
            difference = float(np.abs(found - ours).max())
            if not difference <= SAME:
                raise RuntimeError(
                    f"{server.name}'s vectors differ from {servers[0].name}'s by {difference:g}."
                )
            figures.differences[server.name] = max(difference, figures.differences.get(server.name, 0.0))


def rounds(servers: Sequence[Server], effort: Effort, figures: Figures, *, seed: int) -> None:
    """Measure each server with each kind of text and each number of clients. Each round has its own order of turns."""
    chance = random.Random(seed)
    turns = [
        (server, kind, clients) for kind in effort.kinds for clients in effort.clients for server in servers
    ]
    for number in range(effort.rounds):
        chance.shuffle(turns)
        for done, (server, kind, clients) in enumerate(turns, 1):
            found = turn(server, kind, clients, seconds=effort.seconds, figures=figures)
            show(
                f"round {number + 1}, {done} of {len(turns)}: {server.name}, {kind}, {clients} clients: {shown(found)}"
            )
        order = list(servers)
        chance.shuffle(order)
        for server in order:
            found = _turn(
                server, server.requests(texts("short"), encoding="float"), TUNED_WITH, effort.seconds
            )
            figures.numbers.setdefault(server.name, []).append(found)
            show(f"round {number + 1}, numbers: {server.name}: {shown(found)}")


def outliers(servers: Sequence[Server], effort: Effort, figures: Figures, *, seed: int) -> None:
    """Measure each server with short texts: first without outliers, and then while one more client sends a text of
    8,000 tokens several times a second."""
    chance = random.Random(seed)
    for number in range(effort.rounds):
        order = list(servers)
        chance.shuffle(order)
        for server in order:
            short = server.requests(texts("short"))
            before = server.rss_bytes() / 2**20
            calm = _turn(server, short, OUTLIER_CLIENTS, effort.outlier_s)
            found = _turn(server, short, OUTLIER_CLIENTS, effort.outlier_s, rare=[server.request(outlier())])
            figures.calm.setdefault(server.name, []).append(calm)
            figures.outliers.setdefault(server.name, []).append(found)
            first = figures.rss_mib.get(server.name, (before, 0.0))[0]
            figures.rss_mib[server.name] = first, server.rss_bytes() / 2**20
            both = f"p95 {calm.p95_ms:.0f} ms without, {found.p95_ms:.0f} ms with"
            show(f"round {number + 1}, outliers: {server.name}: {both}")


def turn(server: Server, kind: str, clients: int, *, seconds: float, figures: Figures | None) -> Turn:
    """Measure one turn."""
    found = _turn(server, server.requests(texts(kind)), clients, seconds)
    if figures is not None:
        figures.turns.setdefault((kind, clients, server.name), []).append(found)
    return found


def _turn(
    server: Server, requests: Sequence[bytes], clients: int, seconds: float, *, rare: Sequence[bytes] = ()
) -> Turn:
    before, cpu = server.batches(), server.cpu_s()
    samples = client.load(
        server.port, requests, clients=clients, window=client.Window(seconds=seconds), rare=rare
    )
    after, used = server.batches(), bed.added(cpu, server.cpu_s())
    batches, items = after[0] - before[0], after[1] - before[1]
    return Turn(
        rate=samples.rate,
        p50_ms=samples.quantile_ms(0.5),
        p95_ms=samples.quantile_ms(0.95),
        mean_batch=items / max(1, batches),
        cpu_ms=1000 * used / max(1, items),
        client_busy=samples.busy,
    )


def shown(found: Turn) -> str:
    """The figures of a turn in one line."""
    return (
        f"{found.rate:.1f} requests/s, p50 {found.p50_ms:.0f} ms, p95 {found.p95_ms:.0f} ms, "
        f"batches of {found.mean_batch:.1f}, {found.cpu_ms:.1f} ms of CPU each"
    )
