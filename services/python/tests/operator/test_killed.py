"""An operator is killed between two actions, and the next operator continues. The API server and Redis are real.

KubeRay need not be installed: the RayClusters here are marked as managed by another controller, and are
simulated.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from operator_heads import Heads
from operator_lifecycle import ACTIONS, OBSERVATION
from operator_simulation import RAY, Simulation

from daybreak_server.domain.names import deployment_name
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import State
from daybreak_server.settings.tree import PoolSettings, RedisSettings, Settings
from testkit.pools import Pool
from testkit.valkey import start_valkey
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]
WAIT_S = 900.0
DRAIN_S = 3
POOLS = ("daybreak.dev", "v1alpha1")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """The pool's queue on a new Redis."""
    server = start_valkey(tmp_path / "valkey")
    running_pool = Pool(
        Settings(redis=RedisSettings(url=server.url), pools={"echo": PoolSettings(workload="echo")})
    )
    yield running_pool
    running_pool.close()
    server.stop()


class OperatorProcess:
    """The operator's process, and what it has done so far."""

    def __init__(self, folder: Path, *, namespace: str, redis: str, serve: str, after: int) -> None:
        self._actions, self._after = folder / "actions", folder / "after"
        config = {
            "namespace": namespace,
            "redis": redis,
            "serve": serve,
            "actions": str(self._actions),
            "kill_after_actions": str(self._after),
        }
        (folder / "config.json").write_text(json.dumps(config))
        self._after.write_text(str(after))
        self._actions.touch()
        self.log = folder / "operator.log"
        program = [
            sys.executable,
            str(Path(__file__).with_name("operator_lifecycle.py")),
            folder / "config.json",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=log)

    def lines(self) -> list[str]:
        """One line per action or observation; a cross marks the last action of a run."""
        return self._actions.read_text().splitlines()

    def stop_killing(self) -> None:
        """Do not kill the next run."""
        self._after.write_text("0")

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@pytest.fixture
def simulation(api: client.ApiClient, namespace: str, pool: Pool) -> Iterator[Simulation]:
    """A running simulation of KubeRay, kubelets, Serve and the groups."""
    heads = Heads(pool="echo", deployment=deployment_name("echo"), ranks=2)
    running = Simulation(api=api, namespace=namespace, pool=pool, heads=heads, ranks=2, drain_s=DRAIN_S)
    running.start()
    yield running
    running.stop()
    heads.stop()


def spec(image: str, replicas: int) -> dict[str, Any]:
    """The GeneratorPool's spec. KubeRay ignores RayClusters that another controller manages."""
    template = {"spec": {"containers": [{"name": "ray", "image": image}]}}
    return {
        "replicas": replicas,
        "ranks": 2,
        "hostsPerGroup": 2,
        "drainSeconds": DRAIN_S,
        "idle": {"mode": "cluster", "afterSeconds": 2},
        "rayCluster": {
            "spec": {
                "managedBy": "kueue.x-k8s.io/multikueue",
                "headGroupSpec": {"template": template},
                "workerGroupSpecs": [{"template": template}],
            }
        },
    }


class Kubernetes:
    """The GeneratorPool, RayClusters and pods, as a person and KEDA see and change them."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._custom, self._core, self._namespace = (
            client.CustomObjectsApi(api),
            client.CoreV1Api(api),
            namespace,
        )

    def create(self, pool_spec: dict[str, Any]) -> None:
        body = {
            "apiVersion": "/".join(POOLS),
            "kind": "GeneratorPool",
            "metadata": {"name": "echo"},
            "spec": pool_spec,
        }
        self._custom.create_namespaced_custom_object(*POOLS, self._namespace, "generatorpools", body)

    def change(self, **changes: Any) -> None:
        body = [{"op": "replace", "path": f"/spec/{name}", "value": value} for name, value in changes.items()]
        self._custom.patch_namespaced_custom_object(
            *POOLS,
            self._namespace,
            "generatorpools",
            "echo",
            body,
            _content_type="application/json-patch+json",
        )

    def nudge(self, text: str) -> None:
        """Change an annotation, so that the operator reconciles."""
        self._custom.patch_namespaced_custom_object(
            *POOLS,
            self._namespace,
            "generatorpools",
            "echo",
            {"metadata": {"annotations": {"nudge": text}}},
            _content_type="application/merge-patch+json",
        )

    def status(self) -> dict[str, Any]:
        pool_object = self._custom.get_namespaced_custom_object(
            *POOLS, self._namespace, "generatorpools", "echo"
        )
        status: dict[str, Any] = pool_object.get("status") or {}
        return status

    def clusters(self) -> list[dict[str, Any]]:
        listed = self._custom.list_namespaced_custom_object(*RAY, self._namespace, "rayclusters")
        items: list[dict[str, Any]] = listed["items"]
        return items

    def images(self) -> list[str]:
        """The images of the heads."""
        heads = [cluster["spec"]["headGroupSpec"]["template"]["spec"] for cluster in self.clusters()]
        return [head["containers"][0]["image"] for head in heads]

    def workers(self) -> int:
        selector = "ray.io/node-type=worker"
        return len(self._core.list_namespaced_pod(self._namespace, label_selector=selector).items)


Until = Callable[[str, Callable[[], Any]], Any]


def failing_fast(process: OperatorProcess, simulation: Simulation, kubernetes: Kubernetes) -> Until:
    """Return a function that waits, and fails as soon as something is wrong. A timeout shows status, actions, log."""

    def until(what: str, predicate: Callable[[], Any]) -> Any:
        def checked() -> Any:
            assert process.alive(), process.log.read_text()[-4000:]
            assert not [*simulation.wrong, *simulation.heads.wrong]
            return predicate()

        try:
            return wait_until(checked, WAIT_S, what)
        except TimeoutError as exc:
            actions, log = "\n".join(process.lines()[-40:]), process.log.read_text()[-3000:]
            raise AssertionError(f"{exc}\n{kubernetes.status()}\n{actions}\n{log}") from exc

    return until


def settled(kubernetes: Kubernetes, phase: str, *, groups: int) -> Callable[[], bool]:
    """Return a predicate: the pool has this phase, exactly this number of ready groups, and no other worker."""

    def is_settled() -> bool:
        status = kubernetes.status()
        numbers = (status.get("replicas"), status.get("ready"), kubernetes.workers())
        return status.get("phase") == phase and numbers == (groups, groups, 2 * groups)

    return is_settled


def test_an_operator_killed_after_every_action_continues(
    tmp_path: Path, api: client.ApiClient, namespace: str, pool: Pool, simulation: Simulation
) -> None:
    """Each run of the operator takes one action, and the pool still reaches every state that is wanted.

    The pool goes from nothing to two groups, then to one busy group, then group by group to a new image, then to zero
    groups with a suspended head, and then to one group. No busy group is removed before its drain deadline, and no
    task is lost. Once nothing is left to do, the operator writes nothing more.
    """
    kubernetes = Kubernetes(api, namespace)
    redis = pool.settings.redis.url or ""
    process = OperatorProcess(
        tmp_path, namespace=namespace, redis=redis, serve=simulation.heads.start(), after=1
    )
    until = failing_fast(process, simulation, kubernetes)
    try:
        kubernetes.create(spec("one", 0))
        until("a RayCluster", kubernetes.clusters)
        kubernetes.change(replicas=2)
        until("two groups", settled(kubernetes, "Ready", groups=2))

        task = pool.submit()
        simulation.held.add(task)
        until("a group at work", lambda: pool.get(task).state is State.RUNNING)
        kubernetes.change(replicas=1)
        until("the idle group to go", settled(kubernetes, "Ready", groups=1))
        assert (pool.get(task).state, pool.get(task).attempt) == (State.RUNNING, 1)

        kubernetes.change(rayCluster=spec("two", 1)["rayCluster"])
        one_group = settled(kubernetes, "Ready", groups=1)
        until("only the new image", lambda: kubernetes.images() == ["two"] and one_group())
        until("the task to run again", lambda: pool.get(task).state is State.RUNNING)
        simulation.held.clear()
        until("the task to succeed", lambda: pool.get(task).state is State.SUCCEEDED)
        assert pool.get(task).strikes == 0

        kubernetes.change(replicas=0)
        until("zero groups and a suspended head", settled(kubernetes, "Suspended", groups=0))
        kubernetes.change(replicas=1)
        until("one group after zero", one_group)
        _at_rest(process, kubernetes, pool, until)
    finally:
        process.stop()
    last_actions = {line.removesuffix(" †") for line in process.lines() if line.endswith("†")}
    # The operator emits an Event after it has written the status that the Event is about. In this test, the operator
    # dies right after that write, so the Event is lost.
    assert last_actions == set(ACTIONS) - {"emit"}, (
        "every kind of action except `emit` was the last action of some run"
    )


def _at_rest(process: OperatorProcess, kubernetes: Kubernetes, pool: Pool, until: Until) -> None:
    """Check that observations continue, and that none leads to an action."""
    process.stop_killing()

    def calm() -> bool:
        """Whether the last three lines are observations without an action between them."""
        kubernetes.nudge(str(len(process.lines())))
        return process.lines()[-3:] == [OBSERVATION] * 3

    until("three observations without an action", calm)
    before = len([line for line in process.lines() if line != OBSERVATION])
    observations = len(process.lines())
    until(
        "more observations",
        lambda: kubernetes.nudge(secrets.token_hex(4)) or len(process.lines()) >= observations + 5,
    )
    assert len([line for line in process.lines() if line != OBSERVATION]) == before
    groups = pool.view().groups
    assert [group.drain for group in groups if group.state is not GroupState.LOST] == [False]
