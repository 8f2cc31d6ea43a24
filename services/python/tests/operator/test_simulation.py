"""The operator in an adversarial world: events in any order, stale views, conflicts, crashes and failures.

Whatever happens, a busy group is removed only after it was marked to drain and its drain deadline has passed. Once the
inputs stop changing, the world reaches the wanted state, and the operator has nothing left to do.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from operator_driver import Driver
from operator_world import World

LAG = st.integers(0, 3)
NUMBERS = st.integers(0, 2**16)


class OperatorMachine(RuleBasedStateMachine):
    """Runs all possible events in any order. The world checks the invariants; ``teardown`` checks the final state."""

    driver: Driver

    @initialize(
        seed=NUMBERS,
        hosts=st.sampled_from([1, 2]),
        idle=st.sampled_from(["workers", "cluster"]),
        warm=st.booleans(),
    )
    def begin(self, seed: int, hosts: int, idle: str, warm: bool) -> None:
        self.driver = Driver(World(seed=seed, hosts=hosts, ranks=2, idle=idle))
        self.last = 0
        if warm:
            self.driver.settle(2)

    @property
    def world(self) -> World:
        return self.driver.world

    @rule(
        clusters=LAG,
        pods=LAG,
        spec=LAG,
        crash_after=st.none() | st.integers(0, 4),
        group_steps=st.integers(0, 2),
    )
    def operator(
        self, clusters: int, pods: int, spec: int, crash_after: int | None, group_steps: int
    ) -> None:
        self.driver.operator(
            clusters=clusters, pods=pods, spec=spec, crash_after=crash_after, group_steps=group_steps
        )

    @rule(times=st.integers(1, 3))
    def operator_as_usual(self, times: int) -> None:
        for _ in range(times):
            self.driver.operator()

    @rule(stale=st.integers(0, 2))
    def kuberay(self, stale: int) -> None:
        self.driver.kuberay(stale=stale)

    @rule(times=st.integers(1, 4))
    def kubelets(self, times: int) -> None:
        for _ in range(times):
            self.driver.kubelets()

    @rule(times=st.integers(1, 4))
    def ray(self, times: int) -> None:
        for _ in range(times):
            self.driver.ray()

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, 50.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(wanted=st.integers(0, 4))
    def keda(self, wanted: int) -> None:
        self.world.replicas = self.last = wanted

    @rule(tasks=st.integers(1, 3))
    def submit(self, tasks: int) -> None:
        self.world.submit(tasks)

    @precondition(lambda self: self.world.pods)
    @rule(which=NUMBERS, stays=st.booleans())
    def kill(self, which: int, stays: bool) -> None:
        names = sorted(self.world.pods)
        self.driver.kill(names[which % len(names)], stays=stays)

    @rule(silent=st.booleans())
    def heads_are_silent(self, silent: bool) -> None:
        self.world.silent = silent

    @precondition(lambda self: self.world.busy_gangs())
    @rule(which=NUMBERS)
    def hang(self, which: int) -> None:
        gangs = self.world.busy_gangs()
        gangs[which % len(gangs)].hung = True

    @precondition(lambda self: self.world.apps)
    @rule()
    def serve_gives_up(self) -> None:
        for app in self.world.apps.values():
            app.status = "DEPLOY_FAILED"

    @rule(image=st.integers(1, 3), bad=st.booleans())
    def image(self, image: int, bad: bool) -> None:
        self.world.image = image
        if bad:
            self.world.bad_images.add(image)

    @rule(quota=st.booleans())
    def quota(self, quota: bool) -> None:
        self.world.quota = quota

    @rule(up=st.booleans())
    def redis(self, up: bool) -> None:
        self.world.store_up = up

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.world.paused = paused

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        world = self.world
        world.quota = world.paused = world.silent = False
        for name in world.frozen & world.pods.keys():
            self.driver.kill(name)
        world.store_up = True
        world.bad_images.clear()
        for gang in world.gangs.values():
            gang.hung = False
        self.driver.settle(self.last)
        fields = {path.rpartition("/")[2] for path in world.writers}
        assert fields <= {"replicas", "scaleStrategy", "suspend"}


TestOperatorWorld = OperatorMachine.TestCase
TestOperatorWorld.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None
)
