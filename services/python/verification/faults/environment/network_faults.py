"""Network faults on three kinds of links: gateways to the Redis server, groups to this server, clients to gateways.

The scenarios ``network-…`` run under load, and a checker judges the recorded history. The note of each row counts the
faults of each kind. ``store-away`` runs without load: it submits one task at a time, and counts the task's attempts.
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
from verification.faults.environment.proxy import DOWN, HALF_OPEN, PARTITION, Conditions, Flow, TcpProxy
from verification.faults.environment.toxi import Toxiproxy, find_program
from verification.faults.environment.traffic import connection, get_tasks, settle
from verification.faults.load import Load
from verification.faults.scenario_catalogue import ScenarioContext, SkippedError, ViolatedError, scenario
from verification.results import Row

NetworkFault = Callable[[float], None]
"""Injects a fault into a link for a number of seconds."""


def proxy_faults(proxy: TcpProxy) -> dict[str, NetworkFault]:
    """The faults that a :class:`TcpProxy` can inject into its link, by name."""

    def under(conditions: Conditions, *, cut_after: bool) -> NetworkFault:
        def inject(seconds: float) -> None:
            proxy.set_conditions(conditions)
            time.sleep(seconds)
            proxy.heal()
            if cut_after:
                # In production, a keep-alive timeout ends a half-open connection. Here, this call ends it.
                proxy.cut()

        return inject

    def close_port(seconds: float) -> None:
        proxy.set_conditions(DOWN)
        proxy.cut()
        time.sleep(seconds)
        proxy.heal()

    def reset(seconds: float) -> None:
        proxy.cut()
        time.sleep(seconds / 4)

    def lose_replies(seconds: float) -> None:
        proxy.lose_replies(3, match=b"\r\n")
        time.sleep(seconds)

    return {
        "port closed": close_port,
        "connections reset": reset,
        "connection reset before the response": lose_replies,
        "data held, then delivered late": under(PARTITION, cut_after=False),
        "half-open": under(HALF_OPEN, cut_after=True),
        "responses dropped": under(Conditions(down=Flow.SWALLOW), cut_after=True),
        "requests dropped": under(Conditions(up=Flow.SWALLOW), cut_after=True),
        "20 ms more latency each way": under(Conditions(latency_s=0.02), cut_after=False),
        "limited to 200 kB/s": under(Conditions(bytes_per_s=200_000), cut_after=False),
    }


def _under_load(
    context: ScenarioContext,
    cluster: FaultCluster,
    links: dict[str, dict[str, NetworkFault]],
    *,
    seconds: float,
    rate: float,
    name: str,
) -> list[Row]:
    """Inject faults into links, one after the other in a seeded order, for ``seconds`` while clients work."""
    chance = random.Random(f"{context.seed}/{name}")
    order = [(link, what) for link, faults in links.items() for what in faults]
    chance.shuffle(order)
    pools = cluster.options.pools
    plan = schedule.submissions(seed=context.seed, seconds=seconds, rate=rate, pools=pools)
    injected: Counter[str] = Counter()
    with Load(cluster, seed=context.seed) as load:
        load.play(plan)
        end = time.monotonic() + seconds
        while order and time.monotonic() < end:
            for link, what in order:
                if time.monotonic() > end:
                    break
                cluster.history.note("fault", kind="network", link=link, what=what)
                links[link][what](chance.uniform(0.3, 1.0))
                injected[what] += 1
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
            note=f"{counts.get('submit.ok', 0):,} submits, {counts.get('event.saw', 0):,} events by SSE; "
            + ", ".join(f"{count} × {what}" for what, count in sorted(injected.items())),
        )
    ]


@contextmanager
def _links(proxies: dict[str, TcpProxy], stack: ExitStack) -> Iterator[Callable[[str], Callable[[int], str]]]:
    def through(link: str) -> Callable[[int], str]:
        def url(port: int) -> str:
            proxies[link] = stack.enter_context(TcpProxy(("127.0.0.1", port)))
            return f"redis://127.0.0.1:{proxies[link].port}"

        return url

    yield through


@scenario(
    "network-store", "links to the server are cut, half-open, slow or one-way, or lose replies, under load"
)
def network_store(context: ScenarioContext) -> list[Row]:
    """The gateways share one link to the server, and the groups share another. Both links get faults."""
    proxies: dict[str, TcpProxy] = {}
    with (
        ExitStack() as stack,
        _links(proxies, stack) as through,
        context.cluster(
            redis_via=through("gateways"), groups_redis_via=through("groups"), lease_s=4.0
        ) as cluster,
    ):
        links = {name: proxy_faults(proxy) for name, proxy in proxies.items()}
        return _under_load(
            context,
            cluster,
            links,
            seconds=context.repeats(12, 600),
            rate=8.0,
            name="proxies in front of the server",
        )


@scenario("network-clients", "clients' links to the gateways are cut, half-open or slow, or lose responses")
def network_clients(context: ScenarioContext) -> list[Row]:
    """Each gateway is behind its own proxy."""
    proxies: list[TcpProxy] = []
    with ExitStack() as stack:

        def url_of(port: int) -> str:
            proxies.append(stack.enter_context(TcpProxy(("127.0.0.1", port))))
            return f"http://127.0.0.1:{proxies[-1].port}"

        with context.cluster(gateways_via=url_of) as cluster:
            assert len(cluster.urls) == len(proxies)
            links = {f"gateway {index}": proxy_faults(proxy) for index, proxy in enumerate(proxies)}
            return _under_load(
                context,
                cluster,
                links,
                seconds=context.repeats(8, 600),
                rate=8.0,
                name="proxies in front of the gateways",
            )


@scenario("network-toxiproxy", "toxiproxy injects its faults into the links to the server")
def network_toxiproxy(context: ScenarioContext) -> list[Row]:
    """The faults are ``down`` and five kinds of toxics: timeout, reset_peer, latency, bandwidth, limit_data."""
    program = find_program()
    if program is None:
        raise SkippedError("toxiproxy-server is neither on PATH nor beside the checkout")
    with Toxiproxy(program) as toxi:
        links: dict[str, dict[str, NetworkFault]] = {}

        def through(link: str) -> Callable[[int], str]:
            def url(port: int) -> str:
                links[link] = toxi.faults(link)
                return f"redis://127.0.0.1:{toxi.listen(link, port)}"

            return url

        with context.cluster(
            redis_via=through("gateways"), groups_redis_via=through("groups"), lease_s=4.0
        ) as cluster:
            return _under_load(
                context,
                cluster,
                links,
                seconds=context.repeats(7, 300),
                rate=8.0,
                name="toxiproxy in front of the server",
            )


# ── the server is unreachable for all, or only for the groups ────────────────────────────────────────────────


def _running_task(cluster: FaultCluster, seconds: float) -> str:
    body = {"pool": "solo", "input": {**RUNNING["input"], "steps": int(seconds / 0.1)}}
    with connection(cluster.urls[0]) as client:
        task = client.submit(body)
    wait_until(lambda: (get_tasks(cluster.urls, [task])[task] or {}).get("progress"), 20, "the task to run")
    return task


def _ended(cluster: FaultCluster, task: str) -> dict[str, object]:
    view = settle(cluster.urls, [task], timeout_s=60)[task]
    if view is None or view["state"] != "succeeded":
        raise ViolatedError(f"{task} did not succeed: {view}")
    return view


@scenario(
    "store-away",
    "nobody reaches the server for 2 × lease: no lease ends; later only groups cannot reach it: they lose their tasks",
)
def store_disconnect(context: ScenarioContext) -> list[Row]:
    """First no component can reach the server. Later, only the groups cannot reach it."""
    proxies: dict[str, TcpProxy] = {}
    with (
        ExitStack() as stack,
        _links(proxies, stack) as through,
        context.cluster(
            redis_via=through("gateways"), groups_redis_via=through("groups"), lease_s=LEASE_S
        ) as cluster,
    ):
        all_links = list(proxies.values())
        task = _running_task(cluster, 2 * LEASE_S + 2)
        _disconnect(all_links, 2 * LEASE_S)
        away = _ended(cluster, task)
        task = _running_task(cluster, 8)
        _disconnect([proxies["groups"]], 2 * LEASE_S)
        alone = _ended(cluster, task)
    return [
        Row(
            f"server unreachable by all for 2 × lease ({2 * LEASE_S:.0f} s): attempts of the running task",
            float(str(away["attempt"])),
            "attempts",
            target="1",
            held=away["attempt"] == 1,
        ),
        Row(
            "server unreachable only by groups for 2 × lease: attempts of the running task",
            float(str(alone["attempt"])),
            "attempts",
            target="2: a leader that the server cannot see loses its task, and its later writes are refused",
            held=alone["attempt"] == 2,
        ),
    ]


def _disconnect(links: Sequence[TcpProxy], seconds: float) -> None:
    for link in links:
        link.set_conditions(DOWN)
        link.cut()
    time.sleep(seconds)
    for link in links:
        link.heal()
