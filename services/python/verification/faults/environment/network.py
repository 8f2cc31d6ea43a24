"""Networks that fail: between gateways and the server, groups and the server, clients and gateways.

All run under load, and the lab's checker decides from the history; what is counted here is what was done.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from testkit.waiting import wait_until
from verification.faults import mixed, schedule
from verification.faults.cluster import FaultCluster
from verification.faults.environment.full import LEASE_S, RUNNING
from verification.faults.environment.proxy import GONE, HALF_OPEN, PARTITION, Flow, TcpProxy, Weather
from verification.faults.environment.toxi import Toxiproxy, find_program
from verification.faults.environment.traffic import caller, look, settle
from verification.faults.load import Load
from verification.faults.registry import Lab, SkippedError, ViolatedError, scenario
from verification.results import Row

Trouble = Callable[[float], None]
"""Something that is done to a way for so many seconds."""


def own_troubles(proxy: TcpProxy) -> dict[str, Trouble]:
    """What our proxy can do to a way, by name."""

    def weather(what: Weather, *, cut_after: bool) -> Trouble:
        def do(seconds: float) -> None:
            proxy.weather(what)
            time.sleep(seconds)
            proxy.heal()
            if cut_after:  # a half-open connection ends when somebody's keep-alive says so: here, soon
                proxy.cut()

        return do

    def gone(seconds: float) -> None:
        proxy.weather(GONE)
        proxy.cut()
        time.sleep(seconds)
        proxy.heal()

    def reset(seconds: float) -> None:
        proxy.cut()
        time.sleep(seconds / 4)

    def lost(seconds: float) -> None:
        proxy.lose_replies(3, match=b"\r\n")
        time.sleep(seconds)

    return {
        "gone": gone,
        "reset": reset,
        "reply lost": lost,
        "held, then delivered late": weather(PARTITION, cut_after=False),
        "half-open": weather(HALF_OPEN, cut_after=True),
        "answers swallowed": weather(Weather(down=Flow.SWALLOW), cut_after=True),
        "requests swallowed": weather(Weather(up=Flow.SWALLOW), cut_after=True),
        "20 ms slower each way": weather(Weather(latency_s=0.02), cut_after=False),
        "200 kB/s": weather(Weather(bytes_per_s=200_000), cut_after=False),
    }


def _under_load(
    lab: Lab,
    cluster: FaultCluster,
    ways: dict[str, dict[str, Trouble]],
    *,
    seconds: float,
    rate: float,
    name: str,
) -> list[Row]:
    """Clients at work while each way has each trouble, one after the other, in an order that the seed makes."""
    chance = random.Random(f"{lab.seed}/{name}")
    order = [(way, what) for way, troubles in ways.items() for what in troubles]
    chance.shuffle(order)
    pools = cluster.options.pools
    plan = schedule.submissions(seed=lab.seed, seconds=seconds, rate=rate, pools=pools)
    done: Counter[str] = Counter()
    with Load(cluster, seed=lab.seed) as load:
        load.play(plan)
        end = time.monotonic() + seconds
        while order and time.monotonic() < end:
            for way, what in order:
                if time.monotonic() > end:
                    break
                cluster.history.note("fault", kind="network", way=way, what=what)
                ways[way][what](chance.uniform(0.3, 1.0))
                done[what] += 1
                time.sleep(chance.uniform(0.1, 0.4))
        time.sleep(max(0.0, end - time.monotonic()))
        verdict = mixed.settle(cluster, load, bound_s=60)
    if not verdict.ok:
        raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
    counts = cluster.history.counts
    return [
        Row(
            f"{name}: violations of any promise",
            len(verdict.violations),
            "violations",
            target="0",
            held=verdict.ok,
            note=f"{counts.get('submit.ok', 0)} submits, {counts.get('event.saw', 0)} events by SSE; "
            + ", ".join(f"{count} × {what}" for what, count in sorted(done.items())),
        )
    ]


@contextmanager
def _ways(proxies: dict[str, TcpProxy], stack: ExitStack) -> Iterator[Callable[[str], Callable[[int], str]]]:
    def through(way: str) -> Callable[[int], str]:
        def url(port: int) -> str:
            proxies[way] = stack.enter_context(TcpProxy(("127.0.0.1", port)))
            return f"redis://127.0.0.1:{proxies[way].port}"

        return url

    yield through


@scenario(
    "network-store", "the ways to the server are cut, half-open, slow, one-way, and lose replies, under load"
)
def network_store(lab: Lab) -> list[Row]:
    """Gateways and groups each have a way of their own; each has every trouble."""
    proxies: dict[str, TcpProxy] = {}
    with (
        ExitStack() as stack,
        _ways(proxies, stack) as through,
        lab.cluster(through=through("gateways"), groups_through=through("groups"), lease_s=4.0) as cluster,
    ):
        ways = {name: own_troubles(proxy) for name, proxy in proxies.items()}
        return _under_load(
            lab, cluster, ways, seconds=lab.times(12, 600), rate=8.0, name="ways to the server"
        )


@scenario("network-clients", "the ways of clients to the gateways are cut, half-open, slow, and lose answers")
def network_clients(lab: Lab) -> list[Row]:
    """Each gateway behind a proxy of its own."""
    proxies: list[TcpProxy] = []
    with ExitStack() as stack:

        def through(port: int) -> str:
            proxies.append(stack.enter_context(TcpProxy(("127.0.0.1", port))))
            return f"http://127.0.0.1:{proxies[-1].port}"

        with lab.cluster(clients_through=through) as cluster:
            assert len(cluster.urls) == len(proxies)
            ways = {f"gateway {at}": own_troubles(proxy) for at, proxy in enumerate(proxies)}
            return _under_load(
                lab, cluster, ways, seconds=lab.times(8, 600), rate=8.0, name="ways of clients"
            )


@scenario("network-toxiproxy", "the same ways to the server, troubled by toxiproxy")
def network_toxiproxy(lab: Lab) -> list[Row]:
    """The faults that toxiproxy has: down, timeout, reset_peer, latency, bandwidth, limit_data."""
    program = find_program()
    if program is None:
        raise SkippedError("toxiproxy-server is not on PATH")
    with Toxiproxy(program) as toxi:
        ways: dict[str, dict[str, Trouble]] = {}

        def through(way: str) -> Callable[[int], str]:
            def url(port: int) -> str:
                ways[way] = toxi.troubles(way)
                return f"redis://127.0.0.1:{toxi.listen(way, port)}"

            return url

        with lab.cluster(
            through=through("gateways"), groups_through=through("groups"), lease_s=4.0
        ) as cluster:
            return _under_load(lab, cluster, ways, seconds=lab.times(7, 300), rate=8.0, name="toxiproxy")


# ── the server is away, or only from its leader ──────────────────────────────────────────────────────────────


def _running_task(cluster: FaultCluster, seconds: float) -> str:
    body = {"pool": "solo", "input": {**RUNNING["input"], "steps": int(seconds / 0.1)}}
    with caller(cluster.urls[0]) as client:
        task = client.submit(body)
    wait_until(lambda: (look(cluster.urls, [task])[task] or {}).get("progress"), 20, "the task to run")
    return task


def _ended(cluster: FaultCluster, task: str) -> dict[str, object]:
    found = settle(cluster.urls, [task], timeout_s=60)[task]
    if found is None or found["state"] != "succeeded":
        raise ViolatedError(f"{task} should have succeeded: {found}")
    return found


@scenario(
    "store-away",
    "a server that cannot be reached for 2 × lease ends no lease; a leader cut off alone is replaced",
)
def store_away(lab: Lab) -> list[Row]:
    """First the server is away from all, then from one task's group only, while the others go on."""
    proxies: dict[str, TcpProxy] = {}
    with (
        ExitStack() as stack,
        _ways(proxies, stack) as through,
        lab.cluster(
            through=through("gateways"), groups_through=through("groups"), lease_s=LEASE_S
        ) as cluster,
    ):
        both = list(proxies.values())
        task = _running_task(cluster, 2 * LEASE_S + 2)
        _away(both, 2 * LEASE_S)
        away = _ended(cluster, task)
        task = _running_task(cluster, 8)
        _away([proxies["groups"]], 2 * LEASE_S)
        alone = _ended(cluster, task)
    return [
        Row(
            f"server away for 2 × lease ({2 * LEASE_S:.0f} s): attempts of the task that ran",
            float(str(away["attempt"])),
            "attempts",
            target="1",
            held=away["attempt"] == 1,
        ),
        Row(
            "groups cut off from the server for 2 × lease, gateways not: attempts of the task that ran",
            float(str(alone["attempt"])),
            "attempts",
            target="2: a silent leader does lose its task, and what it says later is not heard",
            held=alone["attempt"] == 2,
        ),
    ]


def _away(ways: Sequence[TcpProxy], seconds: float) -> None:
    for way in ways:
        way.weather(GONE)
        way.cut()
    time.sleep(seconds)
    for way in ways:
        way.heal()
