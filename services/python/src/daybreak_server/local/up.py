"""``daybreakd up`` runs Daybreak on one machine: Valkey, Ray with the groups, and the gateway.

``make_plan`` chooses ports and writes the settings for the child processes. A supervisor starts Valkey (unless the
settings name a Redis), and then Ray and the gateway at the same time. As soon as the gateway answers, it accepts tasks,
and ``up`` writes ``up.json`` with ``ready: false``. ``up`` is ready when every group is ready. With ``observe``, ``up``
also starts Prometheus (:mod:`~daybreak_server.local.observe`).

If a process or a group cannot start, ``up`` exits with the reason. Once ``up`` is ready, it restarts whatever fails. On
SIGINT, SIGTERM or SIGHUP, it stops the processes in reverse order, keeps the logs of Ray, and ends every process that
is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from daybreak_server import wiring
from daybreak_server.adapters.ray import fast_start
from daybreak_server.adapters.ray.fast_start_environment import FAST_START_ENVIRONMENT
from daybreak_server.domain.pools import GroupState
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import EmbeddedValkey
from daybreak_server.local.free_ports import free_port, is_free, sticky_port
from daybreak_server.local.instance import Instance, InstanceError, settings_file, write_atomically
from daybreak_server.local.observe import Observer, ray_targets
from daybreak_server.local.observe import observer as make_observer
from daybreak_server.local.supervisor import ProcessFailedError, ProcessSpec, ProcessSupervisor
from daybreak_server.local.wake_status import WakeReporter
from daybreak_server.ports.blobs import BlobError
from daybreak_server.settings.address_format import reachable, url_of
from daybreak_server.settings.tree import Settings

_START_S = 900.0
"""How long ``up`` waits for its groups. Large models take long to load. Most failures are noticed much earlier."""
_MAX_FAILURES = 2
"""When the ranks of a pool have failed this many times in total, ``up`` no longer waits for the groups, and exits."""


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """What to start, and where."""

    settings: Settings
    instance: Instance
    processes: tuple[ProcessSpec, ...]
    url: str
    api_url: str
    report: Path
    ray_folder: Path
    observer: Observer | None = None


def run_up(settings: Settings, *, observe: bool = False) -> int:
    """Start everything, keep it running until a signal arrives, and stop everything. ``observe``: also run Prometheus.

    :returns: 0 after a signal, 1 if a process or a group cannot start.
    """
    stopping = threading.Event()
    _on_signals(stopping)
    try:
        instance = Instance(settings.data_dir)
        leftover = instance.open()
    except InstanceError as exc:
        say(f"cannot start: {exc}")
        return 1
    if leftover:
        say(f"ended {len(leftover)} processes left by an earlier run")
    try:
        wiring.build_blobs(settings)  # fail here, rather than in each process with a traceback in its log
        plan = make_plan(settings, instance, observe=observe)
    except (InstanceError, BlobError) as exc:
        say(f"cannot start: {exc}")
        instance.close()
        return 1
    return _run(plan, stopping)


def make_plan(settings: Settings, instance: Instance, *, observe: bool = False) -> StartPlan:
    """Choose ports and write the settings of the processes.

    :raises InstanceError: when a port is in use, or when Prometheus should run but is not installed.
    """
    http = settings.http
    if http.port and not is_free(http.port, http.host):
        raise InstanceError(
            f"port {http.port} is in use: set DAYBREAK_HTTP__PORT (for make: PORT=…) to another port"
        )
    http = http.model_copy(update={"port": http.port or free_port(http.host)})
    settings = settings.model_copy(update={"http": http})
    processes: list[ProcessSpec] = []
    if settings.redis.url is None:
        valkey = EmbeddedValkey(instance)
        processes.append(valkey.process_spec())
        redis = settings.redis.model_copy(update={"url": valkey.url})
        settings = settings.model_copy(update={"redis": redis})
    stored = settings_file(instance, settings)
    url = url_of(reachable(http.host), http.port)
    report = instance.folder / "ray.json"
    api_port = sticky_port(instance.folder / "api.port")
    after = tuple(spec.name for spec in processes)
    processes.append(
        _ray(instance, stored, report, api_port, after, fast_start_env=_fast_start_env(settings))
    )
    processes.append(_gateway(instance, stored, url, after))
    observer = make_observer(instance, gateway=url, after=("gateway",)) if observe else None
    if observer is not None:
        processes.append(observer.process)
    return StartPlan(
        observer=observer,
        settings=settings,
        instance=instance,
        processes=tuple(processes),
        url=url,
        api_url=f"http://127.0.0.1:{api_port}",
        report=report,
        ray_folder=instance.ray_folder(),
    )


def _gateway(instance: Instance, settings: Path, url: str, after: tuple[str, ...]) -> ProcessSpec:
    return ProcessSpec(
        name="gateway",
        command=(sys.executable, "-m", "daybreak_server.entrypoints.gateway", str(settings)),
        env=instance.environment("gateway"),
        log=instance.logs / "gateway.log",
        ready=lambda: _get(f"{url}/healthz") is not None,
        ready_s=120,
        stop_s=15,
        after=after,
    )


def _fast_start_env(settings: Settings) -> Mapping[str, str]:
    """Ray's variables for a fast start, if the settings allow it and the version of Ray is known to work with it."""
    reason = fast_start.reason_for_stock_start(
        allowed=settings.ray.fast_start, version=fast_start.installed_version()
    )
    return FAST_START_ENVIRONMENT if reason is None else {}


def _ray(
    instance: Instance,
    settings: Path,
    report: Path,
    api_port: int,
    after: tuple[str, ...],
    *,
    fast_start_env: Mapping[str, str],
) -> ProcessSpec:
    token = instance.folder / "ray.token"
    if not token.exists():
        write_atomically(token, secrets.token_hex(32))
    report.unlink(missing_ok=True)
    command = (
        *(sys.executable, "-m", "daybreak_server.local.local_ray"),
        *(str(settings), str(instance.ray_folder()), str(api_port), str(report), str(ray_targets(instance))),
    )
    return ProcessSpec(
        name="ray",
        command=command,
        env=instance.environment("ray", {**fast_start_env, **_ray_environment(token)}),
        log=instance.logs / "ray.log",
        ready=lambda: _read(report).get("phase") == "running",
        ready_s=600,
        stop_s=60,
        tries=3,  # Ray gives its own processes 30 s to start, and a busy machine may need longer
        after=after,
        before=lambda: report.unlink(missing_ok=True),
    )


def _ray_environment(token: Path) -> dict[str, str | None]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),  # else Ray would write ~/.ray/auth_token
        "RAY_AUTH_TOKEN": None,
        "RAY_ADDRESS": None,
        "RAY_USAGE_STATS_ENABLED": "0",
        # The node uses the loopback address: Ray listens only there, and survives when a laptop changes networks.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000000",
        "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_TQDM_PATCH_PRINT": "0",
        # Ray's default timeouts assume an idle machine.
        "RAY_agent_register_timeout_ms": "600000",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        # By default Ray starts at most one worker per CPU at once. Here Ray may have only one CPU, so ranks would start
        # one by one.
        "RAY_worker_maximum_startup_concurrency": str(max(2, os.cpu_count() or 2)),
    }


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────


def _run(plan: StartPlan, stopping: threading.Event) -> int:
    started = time.monotonic()
    supervisor = ProcessSupervisor(plan.processes, say=say)
    wake_reporter = WakeReporter(plan.settings, say=say)
    code = 0
    try:
        say(f"starting {', '.join(spec.name for spec in plan.processes)}; logs in {plan.instance.logs}")
        supervisor.start()
        wake_reporter.start()
        if supervisor.wait_ready(names=["gateway"], stopping=stopping.is_set):
            _write_state(plan, supervisor, ready=False)  # the gateway accepts tasks from here on
        if supervisor.wait_ready(stopping=stopping.is_set) and _wait_groups(plan, supervisor, stopping):
            supervisor.mark_started()
            _write_state(plan, supervisor)
            for line in plan.observer.lines() if plan.observer else ():
                say(line)
            say(f"ready in {time.monotonic() - started:.1f} s: {plan.url} (documentation at {plan.url}/docs)")
            _wait_for_signal(plan, supervisor, stopping)
    except (ProcessFailedError, InstanceError) as exc:
        say(f"cannot start: {exc}")
        code = 1
    finally:
        say("stopping")
        wake_reporter.stop()
        supervisor.stop()
        _keep_ray_logs(plan)
        survivors = plan.instance.close()
        say(f"these processes did not end: {survivors}" if survivors else "stopped; no processes are left")
    return code


def _wait_for_signal(plan: StartPlan, supervisor: ProcessSupervisor, stopping: threading.Event) -> None:
    pids = supervisor.pids()
    while not stopping.wait(0.5):
        if supervisor.pids() != pids:
            pids = supervisor.pids()
            _write_state(plan, supervisor)


def _write_state(plan: StartPlan, supervisor: ProcessSupervisor, *, ready: bool = True) -> None:
    plan.instance.write_state(
        {
            "mode": "up",
            "ready": ready,
            "url": plan.url,
            "api_url": plan.api_url,
            "pid": os.getpid(),
            "pids": supervisor.pids(),
            "restarts": supervisor.restarts(),
            "pools": list(plan.settings.pools),
            "logs": str(plan.instance.logs),
            **({"prometheus_url": plan.observer.url} if plan.observer else {}),
        }
    )


def _wait_groups(plan: StartPlan, supervisor: ProcessSupervisor, stopping: threading.Event) -> bool:
    """Wait until every group is ready. :returns: ``False`` if ``up`` must stop first.

    :raises InstanceError: when a group cannot start, or not all are ready after ``_START_S``.
    """
    groups_of = {name: pool.groups for name, pool in plan.settings.pools.items()}
    shown: dict[str, str] = {}
    end = time.monotonic() + _START_S
    while not stopping.wait(0.2):
        supervisor.wait_ready(names=["gateway"], stopping=stopping.is_set)
        ready = 0
        for name, groups in groups_of.items():
            view = _get(f"{plan.url}/v1/pools/{name}") or {}
            ready_groups = [group for group in view.get("groups", []) if GroupState(group["state"]).ready]
            ready += len(ready_groups) >= groups
            phase = view.get("wake", {}).get("phase", "")
            if groups and phase and shown.get(name) != phase:
                shown[name] = phase
                say(f"pool {name}: {phase}")
        if ready == len(groups_of):
            return True
        _raise_if_broken(plan)
        if time.monotonic() > end:
            raise InstanceError(
                f"not all groups are ready after {_START_S:g} s; see the logs in {plan.instance.logs}"
            )
    return False


def _raise_if_broken(plan: StartPlan) -> None:
    report = _read(plan.report)
    failures = report.get("failures", {})
    # Serve's status says that a pool is broken, but only the pool's rank knows why.
    broken = {
        name: app
        for name, app in report.get("apps", {}).items()
        if app["status"] in ("DEPLOY_FAILED", "UNHEALTHY") and name in plan.settings.pools
    }
    for pool, failure in failures.items():
        if failure["count"] >= _MAX_FAILURES or pool in broken:
            raise InstanceError(f"rank {failure['rank']} of pool {pool} cannot start: {failure['message']}")
    for name, app in broken.items():
        messages = [app["message"], *(deployment["message"] for deployment in app["deployments"].values())]
        raise InstanceError(f"pool {name} cannot start: {' '.join(filter(None, messages)).strip()}")


def _keep_ray_logs(plan: StartPlan) -> None:
    """Copy the logs out of Ray's session folder, and delete the folder."""
    logs = plan.ray_folder / "session_latest" / "logs"
    kept = plan.instance.logs / "ray"
    with contextlib.suppress(OSError):
        if logs.exists():
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(logs, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(plan.ray_folder, ignore_errors=True)


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────


def _on_signals(stopping: threading.Event) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _get(url: str) -> dict[str, Any] | None:
    """The JSON object at ``url``, or ``None`` if the server does not answer with JSON."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own address
            found = json.load(response)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
