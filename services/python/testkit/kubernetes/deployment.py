"""An installation of Daybreak in its own namespace, and what tests do with it."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daybreak import Client, Pool, Retry, Task
from testkit.kubernetes import s3
from testkit.kubernetes.forward import PortForward
from testkit.kubernetes.image_watch import ImageWatch
from testkit.kubernetes.kube import Kube, ready
from testkit.kubernetes.release import CHART, NAME, Release
from testkit.kubernetes.task_timeline import TERMINAL, TaskTimeline
from testkit.kubernetes.values import Images, values
from testkit.kubernetes.waiting import wait_until
from testkit.kubernetes.watcher import Watcher
from testkit.log import log

GATEWAY_PORT = 8000
ZERO_S = 120
ATTEMPTS = 12
"""Attempts per request: enough for a request to succeed although a part of Daybreak is down for a minute."""
VIEW_S = 60
"""How long a busy gateway may take at most to show a change in its view of a pool."""
WAKE_S = 240
"""On two slow cores, a task of a pool at zero ends at most this many seconds after its submit."""


class Deployment:
    """A namespace with an S3 server, the release and a client. ``open`` creates them, ``close`` removes them."""

    def __init__(self, images: Images, *, namespace: str | None = None, chart: Path = CHART) -> None:
        self.images = images
        self.kube = Kube(namespace or f"daybreak-e2e-{secrets.token_hex(3)}")
        options = {
            images.s3: "--s3-image",
            images.redis: "--redis-image",
            images.engine: "--engine-image",
        }
        self._image_watch = ImageWatch(self.kube.pods, {images.daybreak, *options}, options=options)
        self.release = Release(self.kube.namespace, chart=chart, watch=self._image_watch)
        self.credentials = s3.Credentials()
        self.values = values(images)
        self.client: Client
        self.store: Any = None
        self._watcher = Watcher(self.kube)
        self._forwards: list[PortForward] = []
        self._tasks: dict[str, Task] = {}
        self._reference_sha256s: dict[str, str] = {}

    def open(self) -> None:
        """Install everything and wait until the gateway responds."""
        log(f"namespace {self.kube.namespace}")
        self.kube.create_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
        self._watcher.start()
        self.kube.create(s3.objects(self.credentials, self.images.s3))
        self.release.install(self.values)
        self._image_watch.check()  # checks the S3 server too, for which `release.install` does not wait
        self.store = s3.connect(self.port_forward(s3.NAME, s3.PORT).url, self.credentials)
        self.store.create_bucket(Bucket=s3.BUCKET)
        url = self.port_forward(f"{NAME}-gateway", GATEWAY_PORT).url
        self.client = Client(url, retry=Retry(attempts=ATTEMPTS))
        wait_until(self._responds, timeout_s=60, what="a response of the gateway")

    def close(self, *, keep: bool = False) -> None:
        """Remove everything; with ``keep``, leave the namespace as it is."""
        if hasattr(self, "client"):
            self.client.close()
        for forward in self._forwards:
            forward.close()
        self._watcher.close()
        if keep:
            log(f"namespace {self.kube.namespace} is left as it is")
        else:
            self.kube.delete_namespace()

    def port_forward(self, service: str, port: int) -> PortForward:
        """Forward a local port to a Service until ``close``."""
        forward = PortForward(self.kube.namespace, service, port).open()
        self._forwards.append(forward)
        return forward

    def port_forward_pod(self, selector: str, port: int, *, name: str | None = None) -> PortForward:
        """Forward a local port to a pod: to the one with this name, or to the first that matches the selector."""
        pod_name = name or self.kube.pods(selector)[0].metadata.name
        forward = PortForward(self.kube.namespace, pod_name, port, kind="pod").open()
        self._forwards.append(forward)
        return forward

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, pool: str, input: Mapping[str, Any], **options: Any) -> Task:
        """Submit a task. :meth:`assert_tasks_ended` checks later that it has ended exactly once."""
        task = self.client.submit(pool, input, **options)
        self._tasks[task.id] = task
        return task

    def follow(self, task: Task) -> TaskTimeline:
        return TaskTimeline(self.client, task)

    def sha256(self, task: Task, name: str) -> str:
        """The SHA-256 of an artifact of a task that has succeeded."""
        assert task.state.value == "succeeded", f"{task.id} {task.state.value}: {task.error}"
        (digest,) = [artifact.sha256 for artifact in task.artifacts if artifact.name == name]
        return digest

    def reference_sha256(self, pool: str, input: Mapping[str, Any], name: str) -> str:
        """The SHA-256 of the artifact that an undisturbed task makes from this input. The task runs only once."""
        key = json.dumps([pool, input, name], sort_keys=True)
        if key not in self._reference_sha256s:
            task = self.follow(self.submit(pool, input)).wait_for_end(timeout_s=WAKE_S)
            self._reference_sha256s[key] = self.sha256(task, name)
        return self._reference_sha256s[key]

    def assert_tasks_ended(self) -> None:
        """Assert that each submitted task has ended exactly once, then forget them."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            current = self.client.get(task)
            assert current.state.value in TERMINAL, (
                f"{task.id} is {current.state.value}, attempt {current.attempt}"
            )
            endings = [event.type for event in self.client.events(task) if event.type in TERMINAL]
            assert endings == [current.state.value], (
                f"{task.id} is {current.state.value}, but its terminal events are {endings}"
            )

    # ── pools ────────────────────────────────────────────────────────────────────────────────────────────

    def replicas_wanted(self, pool: str) -> int:
        """The number of groups that KEDA wants."""
        return int((self.kube.pool(pool) or {"spec": {}})["spec"].get("replicas", 0))

    def wait_for_zero(self, pool: str, *, head: bool | None = None, timeout_s: float = ZERO_S) -> None:
        """Wait until no group is wanted and no pod of a group is left.

        Also wait until the Ray head is ready (``head=True``) or gone (``head=False``).
        """

        def at_zero() -> bool:
            if self.replicas_wanted(pool) or self.kube.group_pods(pool):
                return False
            heads = self.kube.heads(pool)
            return head is None or (any(map(ready, heads)) if head else not heads)

        head_state = {None: "", True: ", its head ready", False: ", without a head"}[head]
        wait_until(at_zero, timeout_s=timeout_s, what=f"pool {pool} at zero{head_state}")

    def groups(self, pool: str, *states: str) -> list[str]:
        """Ids of the pool's groups in one of these states; without states, of all groups.

        The view of a gateway is up to a second old, so a test must wait for what it expects of it.
        """
        return [group.id for group in self.client.pool(pool).groups if not states or group.state in states]

    def wait_for_groups(self, pool: str, count: int, *states: str, timeout_s: float = VIEW_S) -> list[str]:
        """Wait until exactly ``count`` groups are in one of these states, and return their ids."""

        def ids() -> list[str] | None:
            found = self.groups(pool, *states)
            return found if len(found) == count else None

        return wait_until(ids, timeout_s=timeout_s, what=f"{count} {'/'.join(states)} groups of {pool}")

    def wait_for_pool(self, pool: str, condition: Callable[[Pool], bool], what: str) -> None:
        """Wait until the API's view of the pool meets the condition."""
        wait_until(lambda: condition(self.client.pool(pool)), timeout_s=VIEW_S, what=what)

    def doctor(self, where: str = f"deploy/{NAME}-gateway") -> str:
        """The output of `daybreakd doctor`, run in a pod of ``where``, which is the gateway by default."""
        command = ["kubectl", "-n", self.kube.namespace, "exec", where, "--"]
        result = subprocess.run(
            [*command, "daybreakd", "doctor"], text=True, capture_output=True, check=False
        )
        return result.stdout + result.stderr

    def _responds(self) -> bool:
        return bool(self.client.pools())
