"""A whole ``daybreakd up`` on this machine. Its clients (:class:`Load`) talk only to its gateway.

:class:`Up` has those attributes of a ``FaultCluster`` that the clients use, so :class:`Load` works with either class.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.domain.pools import GroupState
from daybreak_server.local import reaper
from daybreak_server.local.free_ports import free_port
from daybreak_server.local.instance import instance_tag
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.settings.tree import Settings
from testkit.waiting import wait_until
from verification.faults.history import History
from verification.faults.options import PoolOptions
from verification.faults.system import processes

HOME = Path(__file__).resolve().parents[3]
"""The folder from which ``up`` imports the workloads of this package."""
CPU_ENVIRONMENT = {"MKL_CBWR": "AVX2,STRICT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The part of a cluster's options that the clients read."""

    pools: tuple[PoolOptions, ...]
    seed: int = 0


class Up:
    """A ``daybreakd up`` in a new data folder, as a context manager. ``pools``: the settings of each pool, by name."""

    def __init__(self, pools: Mapping[str, Mapping[str, Any]], *, seed: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="daybreak-system-"))
        self.data = self.folder / "d"
        self.keep = False
        self.pools = pools
        self.options = Options(
            pools=tuple(
                PoolOptions(name=name, ranks=int(pool.get("ranks", 1)), groups=int(pool.get("groups", 1)))
                for name, pool in pools.items()
            ),
            seed=seed,
        )
        self.history = History(self.folder / "history.jsonl", seed=seed)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.urls = [self.url]
        self.mark = instance_tag(self.data)
        self._config = self.folder / "daybreak.yaml"
        self._config.write_text(json.dumps(self._settings()))
        self.output = self.folder / "up.out"
        self.starts_s: list[float] = []
        """Seconds from each start until the system was ready."""
        self.cold_s: dict[str, float] = {}
        """At the first start, by pool: seconds from when Ray was ready until all groups of the pool were ready."""
        self.settings: Settings
        """The settings of the system's processes, with the store's address."""

    def _settings(self) -> dict[str, Any]:
        return {"data_dir": str(self.data), "http": {"port": self.port}, "pools": self.pools}

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.keep = True
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.keep = self.keep or kind is not None
        self.close()

    # ── start and end ────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the system, and return at once."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
        paths = [str(HOME), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(paths)}
        environment |= CPU_ENVIRONMENT
        self._since = time.monotonic()
        self._from = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("daybreakd")), "up", "--config", str(self._config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )

    def output_text(self) -> str:
        """The output since the last start."""
        with self.output.open(errors="replace") as file:
            file.seek(self._from)
            return file.read()

    def wait_ready(self, timeout_s: float = 400.0) -> float:
        """Wait until the output says that all groups are ready. :returns: the seconds since the start."""

        ray_at = 0.0

        def look() -> bool:
            nonlocal ray_at
            if self.process.poll() is not None:
                exited = f"`daybreakd up` exited with {self.process.returncode}"
                raise RuntimeError(f"{exited}:\n{self.output_text()}")
            output, now = self.output_text(), time.monotonic()
            if "ray is ready" in output or "ray is back" in output:
                ray_at = ray_at or now
                for plan in self.options.pools:
                    if plan.name not in self.cold_s and len(self.ready_groups(plan.name)) >= plan.groups:
                        self.cold_s[plan.name] = now - ray_at
            return "ready in" in output and len(self.cold_s) == len(self.pools)

        wait_until(look, timeout_s, f"{self.data} to be ready; see {self.output}")
        self.starts_s.append(time.monotonic() - self._since)
        self.settings = read_settings(self.data / "settings.json")
        return self.starts_s[-1]

    def kill_up(self) -> list[int]:
        """Send SIGKILL to the supervisor itself. :returns: the processes that remain."""
        self.history.note("fault", kind="kill-up", pid=self.process.pid)
        self.process.kill()
        self.process.wait()
        return reaper.tagged(self.mark)

    def close(self) -> None:
        """Stop the system, and kill every process that remains."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        reaper.end_all(self.mark)
        self.history.close()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────────

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The gateway's JSON response to a GET, or to a POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def try_get(self, path: str) -> Any:
        """The JSON response to a GET, or ``None`` when the gateway does not respond, or responds with an error."""
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            return self.call(path)
        return None

    def state(self) -> dict[str, Any]:
        """The contents of ``up.json``."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.data / "up.json").read_text()))
        return {}

    def groups(self, pool: str) -> list[dict[str, Any]] | None:
        """The groups that are not lost, as the API shows them; ``None`` if the gateway does not respond."""
        view = self.try_get(f"/v1/pools/{pool}")
        return None if view is None else [group for group in view["groups"] if group["state"] != "lost"]

    def ready_groups(self, pool: str) -> list[dict[str, Any]]:
        """The groups that are ready."""
        return [group for group in self.groups(pool) or [] if GroupState(group["state"]).ready]

    def wait_groups(self, pool: str, *, timeout_s: float = 180.0) -> None:
        """Wait until all groups of the pool are ready."""
        wanted = next(plan.groups for plan in self.options.pools if plan.name == pool)
        wait_until(lambda: len(self.ready_groups(pool)) >= wanted, timeout_s, f"{wanted} groups of {pool}")

    @property
    def redis_url(self) -> str:
        """The URL of the store."""
        return str(self.settings.redis.url)

    @contextlib.contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A plain Redis client, to inspect the keys."""
        client = redis.Redis.from_url(self.redis_url, decode_responses=True, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()

    def keys(self, pool: str) -> Keys:
        """The names of a pool's keys."""
        return Keys(prefix=self.settings.redis.prefix, pool=pool)

    def api_responds(self) -> bool:
        """Whether the API deployment on Ray responds through Serve's proxy."""
        url = self.state().get("api_url")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def running(self) -> list[int]:
        """All running processes of the system."""
        return reaper.tagged(self.mark)

    def find(self, component: str) -> list[int]:
        """The running processes of a component."""
        return processes.find(self.mark, component)

    def logs(self) -> str:
        """Where the logs are, for error messages."""
        return f"{self.data / 'logs'} and {self.output}"
