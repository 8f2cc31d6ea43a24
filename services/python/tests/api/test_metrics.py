"""``/metrics`` has every declared metric and no other, and follows Prometheus' conventions.

All gateways export the same totals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis
from api_support import POOL, Api, FakeLeader, Serving, make_settings, read_events
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from daybreak_server.adapters.redis.server_stats import stats_of
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api.background import metrics_reader, ticker
from daybreak_server.api.background.metrics_reader import MetricsReader
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.services import wall_ms
from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import EventDraft
from daybreak_server.observability import catalogue, model_catalogue, pool_catalogue, router_catalogue
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.observability.pool_metrics import STATE_S, TOTALS_S, PoolMetrics
from daybreak_server.ports.metrics import Exporter, Metric, MetricType, Source
from testkit.valkey import Server
from testkit.waiting import wait_until

FROM_REDIS = {metric.name for metric in catalogue.ALL if metric.source is Source.REDIS}
NEEDS_MORE = {
    "daybreak_groups_wanted",  # an operator
    "daybreak_wake_phase_seconds",  # a complete wake
    "daybreak_wake_last_seconds",
    "daybreak_redis_script_errors_total",  # an outage
    "daybreak_files_deleted_total",  # a deletion
    "daybreak_tenant_weight_ratio",  # a tenant with waiting tasks
    *(metric.name for metric in router_catalogue.ALL),  # a request to a pool or a model
    *(metric.name for metric in model_catalogue.ALL if "model" in metric.labels),  # a model
}
"""Metrics that may have no series in these tests. The comments say what would have to happen or exist first."""


def scrape(api: Api) -> dict[str, Family]:
    """The metric families, parsed as Prometheus parses them, by the name in their declaration."""
    text = api.client.get("/metrics").text
    families = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        families[name] = family
    return families


def samples(api: Api, names: set[str]) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
    """The samples of these metrics."""
    for name, family in sorted(scrape(api).items()):
        if name in names:
            for sample in family.samples:
                yield sample.name, tuple(sorted(sample.labels.items())), sample.value


def read_some(api: Api, task: str) -> Iterator[str]:
    """The ids of a running task's events so far."""
    with api.client.stream("GET", f"/v1/tasks/{task}/events") as response:
        for line in response.iter_lines():
            if line.startswith("id: "):
                yield line.removeprefix("id: ")


def work(api: Api, leader: FakeLeader) -> None:
    """Run a task that succeeds while a client follows it, and a task that fails once and is then cancelled."""
    task = api.submit()["id"]
    claim = leader.claim()
    assert claim.lease.task == task
    with api.client.stream("GET", f"/v1/tasks/{task}/events") as response:
        lines = response.iter_lines()
        assert any(line == "event: started" for line in lines)
        leader.progress(claim, 1, 2)
        assert any(line == "event: progress" for line in lines)
        leader.finish(claim)
    retried = api.submit()["id"]
    leader.fail(leader.claim())
    api.client.post(f"/v1/tasks/{retried}/cancel")


def test_exactly_the_declared_metrics_are_exported_with_their_types_help_and_labels(
    start_api: Callable[..., Api], leader: FakeLeader
) -> None:
    """The test fails if an exported metric is not declared, or if a declared metric is not exported."""
    pools = {"answers": {"workload": "echo-serve"}, "speech": {"workload": "simulated-speech"}}
    api = start_api(pools=pools)
    work(api, leader)
    wait_until(lambda: "daybreak_tick_lag_seconds" in scrape(api), 30, "a tick")
    found = scrape(api)
    declared = {m.name: m for m in catalogue.ALL if Exporter.GATEWAY in m.exporters}
    assert set(found) - set(declared) == set()
    for name, family in found.items():
        metric: Metric = declared[name]
        assert (family.type, family.documentation) == (metric.type.value, metric.help)
        extra = {"le"} if metric.type is MetricType.HISTOGRAM else set()
        for sample in family.samples:
            assert set(sample.labels) - extra == set(metric.labels), sample
    with_series = {name for name, family in found.items() if family.samples}
    assert set(declared) - with_series <= NEEDS_MORE


def test_buckets_rise_and_end_with_the_count(api: Api, leader: FakeLeader) -> None:
    """Histograms satisfy the checks of ``promtool check metrics``."""
    work(api, leader)
    for family in scrape(api).values():
        if family.type != "histogram":
            continue
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        counts = {}
        for sample in family.samples:
            labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            if sample.name.endswith("_bucket"):
                series.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[labels] = sample.value
        for labels, buckets in series.items():
            values = [count for _, count in sorted(buckets)]
            assert values == sorted(values), (family.name, labels)
            assert sorted(buckets)[-1] == (float("inf"), counts[labels])


def test_every_gateway_exports_the_same_totals_also_after_a_restart(
    valkey: Server,
    api: Api,
    leader: FakeLeader,
    start_api: Callable[..., Api],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A panel may take the maximum over gateways, and no total falls when a gateway restarts."""
    work(api, leader)
    totals = {m.name for m in catalogue.ALL if m.source is Source.REDIS and m.type is not MetricType.GAUGE}
    totals -= {catalogue.REDIS_CPU.name, pool_catalogue.GPU_IDLE.name, pool_catalogue.GPU_WASTED.name}
    before = list(samples(api, totals))
    assert (("daybreak_tasks_submitted_total", (("pool", POOL),), 2.0)) in before
    with Serving(valkey, tmp_path_factory.mktemp("other"), 0, make_settings()) as other:
        assert list(samples(other, totals)) == before
        work(other, leader)
    with Serving(valkey, tmp_path_factory.mktemp("restarted"), 0, make_settings()) as restarted:
        after = {sample[:2]: sample[2] for sample in samples(restarted, totals)}
    assert after["daybreak_tasks_submitted_total", (("pool", POOL),)] == 4.0
    assert all(after[name, labels] >= value for name, labels, value in before)


def test_an_outage_of_redis_keeps_the_last_totals_and_shows_that_it_is_down(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The totals are kept for an hour; ``tests/observability/test_pool_metrics`` tests what happens after that."""
    from testkit.valkey import start_valkey

    own = start_valkey(tmp_path_factory.mktemp("own"))
    try:
        settings = make_settings(redis={"timeout_s": 1.0})
        with Serving(own, tmp_path_factory.mktemp("api"), 0, settings) as api:
            api.submit()
            up = ("daybreak_redis_up", ())
            wait_until(
                lambda: {s[:2]: s[2] for s in samples(api, FROM_REDIS)}.get(up) == 1.0,
                30,
                "the first reading",
            )
            own.stop()
            wait_until(
                lambda: {s[:2]: s[2] for s in samples(api, FROM_REDIS)}[up] == 0.0, 60, "the outage to show"
            )
            shown = {s[:2]: s[2] for s in samples(api, FROM_REDIS)}
            assert shown["daybreak_tasks_submitted_total", (("pool", POOL),)] == 1.0
    finally:
        own.stop()


def test_a_slow_subscriber_and_each_script_are_counted(api: Api, leader: FakeLeader) -> None:
    """A client that returns after events were trimmed has missed some, which counts as a reset. A client that opens
    the stream for the first time has missed none."""
    task = api.submit()["id"]
    claim = leader.claim()
    first = next(iter(read_some(api, task)))
    for _ in range(6):
        leader.queue.report(claim.lease, [EventDraft(type="log", data={"message": "x"})] * 250)
    leader.finish(claim)
    assert read_events(api.url, task)[0]["type"] == "reset"
    assert read_events(api.url, task, after="9999999999999-0")[0]["type"] == "reset"
    assert scrape(api)["daybreak_stream_resets_total"].samples[0].value == 0
    assert read_events(api.url, task, after=first)[0]["type"] == "reset"
    families = scrape(api)
    assert families["daybreak_stream_resets_total"].samples[0].value == 1
    scripts = {sample.labels["script"] for sample in families["daybreak_redis_script_seconds"].samples}
    assert {"submit", "tick", "show", "measure", "pool"} <= scripts


def exported(metrics: PoolMetrics) -> set[str]:
    return {sample.name for family in metrics.collect() for sample in family.samples}


def test_a_gateway_that_does_not_reach_redis_exports_no_old_state_but_its_totals_for_a_while() -> None:
    """Queries take the maximum over gateways, so an old state could hide a newer, smaller one."""
    now = 0.0
    metrics = PoolMetrics(clock=lambda: now)
    metrics.update(PoolView(name="video", queued=500))
    metrics.update_totals(PoolTotals(name="video"))
    metrics.update_server(stats_of({"used_memory": 7, "used_cpu_user_main_thread": 1.5}), up=True)
    state = {"daybreak_pool_tasks", "daybreak_pool_dead_letters", "daybreak_redis_memory_bytes"}
    totals = {
        "daybreak_tasks_submitted_total",
        "daybreak_task_run_seconds_count",
        "daybreak_redis_cpu_seconds_total",
    }
    assert exported(metrics) >= state | totals
    now = STATE_S + 1
    metrics.update_server(None, up=False)
    assert exported(metrics) >= totals
    assert not exported(metrics) & state
    now = TOTALS_S + 1
    assert exported(metrics) == {"daybreak_redis_up"}
    metrics.update(PoolView(name="video", queued=500))
    assert "daybreak_pool_tasks" in exported(metrics)


def test_what_a_server_does_not_say_is_not_exported() -> None:
    """Managed Redis servers omit some lines of INFO. A wrong 0 for such a line would cause an alert that never ends."""
    metrics = PoolMetrics()
    metrics.update_server(stats_of({"used_memory": 7}), up=True)
    assert exported(metrics) == {"daybreak_redis_up", "daybreak_redis_memory_bytes"}
    metrics.update_server(stats_of({"aof_enabled": 0}), up=True)
    assert exported(metrics) >= {"daybreak_redis_aof_enabled", "daybreak_redis_aof_healthy"}


class CountingStore(RedisStore):
    """Counts how often the totals are read."""

    measured = 0

    async def measure(self, pool: str) -> PoolTotals:
        self.measured += 1
        return await super().measure(pool)


def reader_of(url: str) -> tuple[MetricsReader, CountingStore]:
    store = CountingStore(url)
    reader = MetricsReader(
        pools=[POOL],
        pool_views=PoolViewCache(store, wall_ms),
        measurements=store,
        metrics=GatewayMetrics(),
    )
    return reader, store


async def test_a_server_that_refuses_info_is_up(valkey: Server) -> None:
    admin = redis.Redis.from_url(valkey.url)
    admin.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", "-info")
    reader, store = reader_of(valkey.url.replace("redis://", "redis://managed:pw@"))
    try:
        await reader.refresh()
        names = exported(reader.metrics.pools)
        up = reader.metrics.registry.get_sample_value("daybreak_redis_up")
    finally:
        await store.close()
        admin.execute_command("ACL", "DELUSER", "managed")
        admin.close()
    assert (up, "daybreak_pool_tasks" in names, "daybreak_redis_memory_bytes" in names) == (1.0, True, False)


async def test_scrapes_that_wait_for_a_server_that_hangs_wait_together(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus gives up after 10 s. If each scrape waited for those before it, the gateway would seem to be down."""
    monkeypatch.setattr(metrics_reader, "TIMEOUT_S", 0.3)
    reader, store = reader_of(valkey.url)
    with redis.Redis.from_url(valkey.url) as admin:
        admin.execute_command("CLIENT", "PAUSE", "3000", "ALL")
        try:
            await asyncio.gather(*(reader.refresh() for _ in range(20)))
        finally:
            await store.close()
            await asyncio.to_thread(admin.ping)  # returns when the pause ends
    assert store.measured == 1
    assert reader.metrics.registry.get_sample_value("daybreak_redis_up") == 0.0


def test_a_pool_that_never_ticks_has_a_lag_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag must grow even if nothing reads ``/metrics``, because Ray exports the value that was set last."""
    metrics = GatewayMetrics()

    def lag() -> float | None:
        return metrics.registry.get_sample_value("daybreak_tick_lag_seconds", {"pool": POOL})

    async def run() -> None:
        metrics.begin_ticks(POOL)
        reporting = asyncio.create_task(ticker.report_ages(metrics))
        while not (lag() or 0) > 0.05:
            await asyncio.sleep(0.01)
        reporting.cancel()

    monkeypatch.setattr(ticker, "AGES_S", 0.01)
    asyncio.run(asyncio.wait_for(run(), 30))
