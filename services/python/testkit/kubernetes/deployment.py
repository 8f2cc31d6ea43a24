"""An installation of Daybreak in a namespace of its own, and what a test does with it."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daybreak import Client, Retry, Task
from e2e.images import ImageWatch
from testkit.kubernetes import s3
from testkit.kubernetes.forward import Forward
from testkit.kubernetes.kube import Kube, ready
from testkit.kubernetes.release import CHART, NAME, Release
from testkit.kubernetes.task_timeline import TERMINAL, Story
from testkit.kubernetes.values import Images, values
from testkit.kubernetes.waiting import wait_until
from testkit.kubernetes.watcher import Watcher
from testkit.log import say

GATEWAY_PORT = 8000
ZERO_S = 120
PATIENCE = 12
"""Tries of a request: enough for the minute in which a part of Daybreak is away."""
WAKE_S = 240
"""From a POST at zero to the task's end, on two slow cores."""


class House:
    """Namespace, S3 server, release, and a client; ``open`` makes them, ``close`` takes them away."""

    def __init__(self, images: Images, *, namespace: str | None = None, chart: Path = CHART) -> None:
        self.images = images
        self.kube = Kube(namespace or f"daybreak-e2e-{secrets.token_hex(3)}")
        options = {images.s3: "--s3-image", images.redis: "--redis-image"}
        self._images = ImageWatch(self.kube.pods, {images.daybreak, *options}, options=options)
        self.release = Release(self.kube.namespace, chart=chart, watch=self._images)
        self.credentials = s3.Credentials()
        self.values = values(images)
        self.client: Client
        self.store: Any = None
        self._watcher = Watcher(self.kube)
        self._forwards: list[Forward] = []
        self._tasks: dict[str, Task] = {}
        self._undisturbed: dict[str, str] = {}

    def open(self) -> None:
        """From nothing to a gateway that answers."""
        say(f"namespace {self.kube.namespace}")
        self.kube.create_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
        self._watcher.start()
        self.kube.create(s3.objects(self.credentials, self.images.s3))
        self.release.install(self.values)
        self._images.look()  # that of the S3 server: the chart does not wait for it
        self.store = s3.connect(self.forward(s3.NAME, s3.PORT).url, self.credentials)
        self.store.create_bucket(Bucket=s3.BUCKET)
        url = self.forward(f"{NAME}-gateway", GATEWAY_PORT).url
        self.client = Client(url, retry=Retry(attempts=PATIENCE))
        wait_until(self._answers, timeout_s=60, what="an answer of the gateway")

    def close(self, *, keep: bool = False) -> None:
        """``keep``: leave the namespace and all that runs in it."""
        if hasattr(self, "client"):
            self.client.close()
        for one in self._forwards:
            one.close()
        self._watcher.close()
        if keep:
            say(f"namespace {self.kube.namespace} is left as it is")
        else:
            self.kube.delete_namespace()

    def forward(self, service: str, port: int) -> Forward:
        """A Service at an address of this machine, until ``close``."""
        made = Forward(self.kube.namespace, service, port).open()
        self._forwards.append(made)
        return made

    def forward_pod(self, selector: str, port: int, *, name: str | None = None) -> Forward:
        """The same for the first pod of a selector, or the one of that name: what no Service leads to."""
        found = [pod.metadata.name for pod in self.kube.pods(selector)]
        made = Forward(self.kube.namespace, name or found[0], port, kind="pod").open()
        self._forwards.append(made)
        return made

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, pool: str, given: Mapping[str, Any], **options: Any) -> Task:
        """Hand in a task; at the test's end it must have ended, once."""
        task = self.client.submit(pool, given, **options)
        self._tasks[task.id] = task
        return task

    def follow(self, task: Task) -> Story:
        return Story(self.client, task)

    def sha256(self, done: Task, name: str) -> str:
        """Of an artifact of a task that has succeeded."""
        assert done.state.value == "succeeded", f"{done.id} {done.state.value}: {done.error}"
        (found,) = [one.sha256 for one in done.artifacts if one.name == name]
        return found

    def undisturbed(self, pool: str, given: Mapping[str, Any], name: str) -> str:
        """SHA-256 of what this input gives when nothing is done to its task; made once."""
        key = json.dumps([pool, given, name], sort_keys=True)
        if key not in self._undisturbed:
            done = self.follow(self.submit(pool, given)).end(timeout_s=WAKE_S)
            self._undisturbed[key] = self.sha256(done, name)
        return self._undisturbed[key]

    def settle(self) -> None:
        """No accepted task is lost or stuck, and none has ended twice. Afterwards nothing is remembered."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            now = self.client.get(task)
            assert now.state.value in TERMINAL, f"{task.id} is {now.state.value}, attempt {now.attempt}"
            endings = [one.type for one in self.client.events(task) if one.type in TERMINAL]
            assert endings == [now.state.value], f"{task.id} is {now.state.value} and was told {endings}"

    # ── pools ────────────────────────────────────────────────────────────────────────────────────────────

    def wanted(self, pool: str) -> int:
        """Groups that KEDA asks for."""
        return int((self.kube.pool(pool) or {"spec": {}})["spec"].get("replicas", 0))

    def at_zero(self, pool: str, *, head: bool | None = None, timeout_s: float = ZERO_S) -> None:
        """Wait until no worker is left; ``head``: whether the Ray head must be there (ready) or gone."""

        def there() -> bool:
            if self.wanted(pool) or self.kube.workers(pool):
                return False
            heads = self.kube.heads(pool)
            return head is None or (any(map(ready, heads)) if head else not heads)

        told = {None: "", True: ", its head ready", False: ", and no head"}[head]
        wait_until(there, timeout_s=timeout_s, what=f"pool {pool} at zero{told}")

    def groups(self, pool: str, *states: str) -> list[str]:
        """Ids of the pool's groups in one of these states (none named: any)."""
        return [one.id for one in self.client.pool(pool).groups if not states or one.state in states]

    def doctor(self, where: str = f"deploy/{NAME}-gateway") -> str:
        """What `daybreakd doctor` says in a gateway's pod, or in another."""
        command = ["kubectl", "-n", self.kube.namespace, "exec", where, "--"]
        done = subprocess.run([*command, "daybreakd", "doctor"], text=True, capture_output=True, check=False)
        return done.stdout + done.stderr

    def _answers(self) -> bool:
        return bool(self.client.pools())
