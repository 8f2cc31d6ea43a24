"""``daybreakd up``: Daybreak on one machine, kept running: Valkey, Ray with its groups, the gateway."""

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
from daybreak_server.adapters.ray.fast_start_environment import QUICK
from daybreak_server.domain.pools import GroupState
from daybreak_server.local.console import say
from daybreak_server.local.embedded_valkey import EmbeddedValkey
from daybreak_server.local.instance import (
    Instance,
    InstanceError,
    free_port,
    is_free,
    settings_file,
    sticky_port,
    write_atomically,
)
from daybreak_server.local.supervisor import ProcessFailedError, ProcessSpec, Supervisor
from daybreak_server.local.wake_status import WakeReporter
from daybreak_server.ports.blobs import BlobError
from daybreak_server.settings.addresses import reachable, url_of
from daybreak_server.settings.tree import Settings

_START_S = 900.0
"""A model may take long to load; what is broken is seen much earlier."""
_MAX_FAILURES = 2
"""GroupStore that end so often before the first one is ready are broken."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is started, and where."""

    settings: Settings
    instance: Instance
    parts: tuple[ProcessSpec, ...]
    url: str
    api_url: str
    report: Path
    ray_folder: Path


def run_up(settings: Settings) -> int:
    """Start everything, say when it is ready, keep it running until a signal, stop everything.

    Returns 0 after a signal, 1 when a part could not be started.
    """
    going = threading.Event()
    _on_signals(going)
    try:
        instance = Instance(settings.data_dir)
        left = instance.open()
    except InstanceError as exc:
        say(f"cannot start: {exc}")
        return 1
    if left:
        say(f"ended {len(left)} processes that an earlier run had left")
    try:
        wiring.build_blobs(settings)  # its parts would fail one by one, each with a traceback in its log
        plan = make_plan(settings, instance)
    except (InstanceError, BlobError) as exc:
        say(f"cannot start: {exc}")
        instance.close()
        return 1
    return _run(plan, going)


def make_plan(settings: Settings, instance: Instance) -> Plan:
    """Choose ports and write the settings of the parts. :raises InstanceError: when a port is taken."""
    http = settings.http
    if http.port and not is_free(http.port, http.host):
        raise InstanceError(f"port {http.port} is taken: choose another (PORT=…, DAYBREAK_HTTP__PORT)")
    http = http.model_copy(update={"port": http.port or free_port(http.host)})
    settings = settings.model_copy(update={"http": http})
    parts: list[ProcessSpec] = []
    if settings.redis.url is None:
        valkey = EmbeddedValkey(instance)
        parts.append(valkey.part())
        redis = settings.redis.model_copy(update={"url": valkey.url})
        settings = settings.model_copy(update={"redis": redis})
    stored = settings_file(instance, settings)
    url = url_of(reachable(http.host), http.port)
    report = instance.folder / "ray.json"
    api_port = sticky_port(instance.folder / "api.port")
    after = tuple(part.name for part in parts)
    parts.append(_ray(instance, stored, report, api_port, after, quick=_quick(settings)))
    parts.append(_gateway(instance, stored, url, after))
    return Plan(
        settings=settings,
        instance=instance,
        parts=tuple(parts),
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


def _quick(settings: Settings) -> Mapping[str, str]:
    """Ray's own settings for a fast start, where its version is known to be fit for one."""
    reason = fast_start.reason_for_stock_start(
        allowed=settings.ray.fast_start, version=fast_start.installed_version()
    )
    return QUICK if reason is None else {}


def _ray(
    instance: Instance,
    settings: Path,
    report: Path,
    api_port: int,
    after: tuple[str, ...],
    *,
    quick: Mapping[str, str],
) -> ProcessSpec:
    token = instance.folder / "ray.token"
    if not token.exists():
        write_atomically(token, secrets.token_hex(32))
    report.unlink(missing_ok=True)
    command = (
        *(sys.executable, "-m", "daybreak_server.local.local_ray"),
        *(str(settings), str(instance.ray_folder()), str(api_port), str(report)),
    )
    return ProcessSpec(
        name="ray",
        command=command,
        env=instance.environment("ray", {**quick, **_ray_environment(token)}),
        log=instance.logs / "ray.log",
        ready=lambda: _read(report).get("phase") == "running",
        ready_s=600,
        stop_s=60,
        tries=3,  # Ray gives its own processes 30 s, and a machine that is busy may need longer
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
        # A node with the loopback's address: Ray listens there only, and a laptop may change networks.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000000",
        "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_TQDM_PATCH_PRINT": "0",
        # Ray's patience is for idle machines.
        "RAY_agent_register_timeout_ms": "600000",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        # Else as many as CPUs are reserved, so that the ranks of a gang would start one after another.
        "RAY_worker_maximum_startup_concurrency": str(max(2, os.cpu_count() or 2)),
    }


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────


def _run(plan: Plan, going: threading.Event) -> int:
    started = time.monotonic()
    supervisor = Supervisor(plan.parts, say=say)
    telling = WakeReporter(plan.settings, say=say)
    code = 0
    try:
        say(f"starting {', '.join(part.name for part in plan.parts)}; logs in {plan.instance.logs}")
        supervisor.start()
        telling.start()
        if supervisor.wait_ready(names=["gateway"], going=going.is_set):
            _tell(plan, supervisor, ready=False)  # tasks are taken from here on
        if supervisor.wait_ready(going=going.is_set) and _wait_groups(plan, supervisor, going):
            supervisor.settled()
            _tell(plan, supervisor)
            say(f"ready in {time.monotonic() - started:.1f} s: {plan.url} (documentation at {plan.url}/docs)")
            _stay(plan, supervisor, going)
    except (ProcessFailedError, InstanceError) as exc:
        say(f"cannot start: {exc}")
        code = 1
    finally:
        say("stopping")
        telling.stop()
        supervisor.stop()
        _keep_ray_logs(plan)
        left = plan.instance.close()
        say(f"these processes would not end: {left}" if left else "stopped; nothing is left running")
    return code


def _stay(plan: Plan, supervisor: Supervisor, going: threading.Event) -> None:
    pids = supervisor.pids()
    while not going.wait(0.5):
        if supervisor.pids() != pids:
            pids = supervisor.pids()
            _tell(plan, supervisor)


def _tell(plan: Plan, supervisor: Supervisor, *, ready: bool = True) -> None:
    plan.instance.tell(
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
        }
    )


def _wait_groups(plan: Plan, supervisor: Supervisor, going: threading.Event) -> bool:
    """Wait until every group is ready; ``False`` when told to stop.

    :raises InstanceError: when one cannot be.
    """
    wanted = {name: pool.groups for name, pool in plan.settings.pools.items()}
    shown: dict[str, str] = {}
    end = time.monotonic() + _START_S
    while not going.wait(0.2):
        supervisor.wait_ready(names=["gateway"], going=going.is_set)
        ready = 0
        for name, groups in wanted.items():
            view = _get(f"{plan.url}/v1/pools/{name}") or {}
            have = [group for group in view.get("groups", []) if GroupState(group["state"]).ready]
            ready += len(have) >= groups
            phase = view.get("wake", {}).get("phase", "")
            if groups and phase and shown.get(name) != phase:
                shown[name] = phase
                say(f"pool {name}: {phase}")
        if ready == len(wanted):
            return True
        _raise_if_broken(plan)
        if time.monotonic() > end:
            raise InstanceError(f"no group after {_START_S:g} s; see {plan.instance.logs}")
    return False


def _raise_if_broken(plan: Plan) -> None:
    report = _read(plan.report)
    for pool, failure in report.get("failures", {}).items():
        if failure["count"] >= _MAX_FAILURES:
            raise InstanceError(f"rank {failure['rank']} of pool {pool} cannot start: {failure['why']}")
    for name, app in report.get("apps", {}).items():
        if app["status"] in ("DEPLOY_FAILED", "UNHEALTHY") and name in plan.settings.pools:
            details = [one["message"] for one in app["deployments"].values() if one["message"]]
            raise InstanceError(f"pool {name}: {' '.join([app['message'], *details]).strip()}")


def _keep_ray_logs(plan: Plan) -> None:
    """Ray writes into its session's folder, which goes; its logs stay."""
    logs = plan.ray_folder / "session_latest" / "logs"
    kept = plan.instance.logs / "ray"
    with contextlib.suppress(OSError):
        if logs.exists():
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(logs, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(plan.ray_folder, ignore_errors=True)


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────


def _on_signals(going: threading.Event) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        going.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _get(url: str) -> dict[str, Any] | None:
    """The JSON object there, or ``None`` where there is none for now."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
