"""The demand of a pool on a real server is what the pure model says, for any calls in any order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server
from verification.queue_model.demand import ModelDemand
from verification.queue_model.pool import ModelPool


class Machine(RuleBasedStateMachine):
    """Drives the store and the model side by side."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.driver = Driver(self.server.url)
        self.pool = ModelPool(now=self.driver.now)
        self.model = ModelDemand(self.pool)

    @initialize(target_load=st.sampled_from([0.5, 1, 2.5, 4, 1000]))
    def begin(self, target_load: float) -> None:
        self.set_target_load(target_load)
        self.tick()

    @rule(
        gateway=st.sampled_from(["a", "b", "c"]),
        requests=st.sampled_from([0, 1, 2, 3, 17, 400]),
        ttl_s=st.sampled_from([2, 3, 5, 20]),
    )
    def publish(self, gateway: str, requests: int, ttl_s: int) -> None:
        if self.model.target_load is not None:  # a pool without a target load serves no requests
            got = self.driver.publish_demand(gateway, requests, ttl_s=ttl_s)
            assert got == self.model.publish(gateway, requests, ttl_ms=ttl_s * 1000)

    @rule(target_load=st.sampled_from([None, 0.5, 1, 2.5, 4]))
    def set_target_load(self, target_load: float | None) -> None:
        """Change the settings of the gateways. The new value counts from the next call on."""
        self.driver.target_load = self.model.target_load = target_load
        self.tick()

    @rule(ms=st.sampled_from([1, 1000, 1000, 3000, 3_600_000, -3_600_000]))
    def advance(self, ms: int) -> None:
        """Move the wall clock without a tick: forward by at most 3 s, or by an hour in either direction, as if an
        administrator had set the clock."""
        self.driver.now += ms
        self.pool.now = self.driver.now

    @rule()
    def tick(self) -> None:
        self.driver.tick()
        self.pool.tick()
        self.model.update()

    @rule(seconds=st.sampled_from([1, 2, 5, 16]))
    def time_passes(self, seconds: int) -> None:
        """Let seconds pass with a tick in each, so that leases end."""
        for _ in range(seconds):
            self.advance(1000)
            self.tick()

    @invariant()
    def same(self) -> None:
        demand = self.driver.client.hgetall(self.driver.keys.single("demand"))
        stored = {name.decode(): tuple(map(int, held.split())) for name, held in demand.items()}
        assert stored == self.model.requests
        wanted = {int(n): int(since) for n, since in self.driver.zset("wanted").items()}
        assert wanted == dict(enumerate(self.model.needed_since, 1))
        view = self.driver.view()
        assert (view.demand, view.wanted) == (sum(n for n, _ in self.model.requests.values()), len(wanted))

    def teardown(self) -> None:
        try:
            check_keys(self.driver.client)
        finally:
            self.driver.close()


def test_the_store_counts_demand_as_the_model_does(server: Server) -> None:
    kind = type("DemandMachine", (Machine,), {"server": server})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=max(1, settings().max_examples // 4),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
