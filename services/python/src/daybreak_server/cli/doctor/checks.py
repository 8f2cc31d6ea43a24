"""``daybreakd doctor``: checks what Daybreak needs on this machine, and says how to fix what is wrong.

Every function that checks something yields a :class:`Check` for each result, good or bad. The checks change nothing,
with one exception: to probe the blob store, one of them writes and deletes a small file, and creates the folder of a
local store.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from daybreak_server.adapters.ray import fast_start
from daybreak_server.cli.doctor import cluster, redis, serving, workers
from daybreak_server.cli.doctor.check import Check, error, ok, version, warning
from daybreak_server.domain.names import environment_variable
from daybreak_server.local.instance import running_state
from daybreak_server.settings.address_format import host_port
from daybreak_server.settings.sources import masked
from daybreak_server.settings.tree import PoolSettings, Settings

GIB = 1 << 30
OLDEST = {"ray": (2, 60), "torch": (2, 11)}
"""For each package, the oldest version with the functions that Daybreak calls."""
_VERIFIED = ("video", "speech")
"""The workloads whose model folders can be checked without loading the model."""

Examine = Callable[[Settings], Iterator[Check]]
_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


def examine(settings: Settings) -> list[Check]:
    """Run the checks that these settings need, in the order in which to fix problems."""
    checks: list[Check] = []
    machine: tuple[Examine, ...] = (_packages, redis.examine, _pools, serving.examine, workers.examine)
    groups: tuple[Examine, ...] = (_processors, _gpus)
    if workers.fronts_workers_only(settings):
        checks.append(ok("pools", "none is named in the settings, so Ray and torch are not needed"))
        machine, groups = (redis.examine, workers.examine), ()
    machine += (_artifacts, _port, _disk, *groups)
    for check in (*machine, cluster.examine):
        checks += check(settings)
    return checks


def broken(checks: list[Check]) -> bool:
    """Whether a check found an error. Warnings do not count."""
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
    lines += [
        "",
        f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" if errors or warnings else "no problems",
    ]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _packages(settings: Settings) -> Iterator[Check]:
    """Check Ray, which runs the groups, and the packages that the video workload needs: torch, diffusers and av."""
    video = any(pool.workload == "video" for pool in settings.pools.values())
    needed = {"ray": "ray", **({"torch": "video", "diffusers": "video", "av": "mp4"} if video else {})}
    for package, extra in needed.items():
        found = version(package)
        install = f"pip install 'daybreak-server[{extra}]'; `daybreakd dev` works without this"
        oldest = OLDEST.get(package, (0,))
        if found is None:
            yield error(package, "not installed", install)
        elif _numbers(found) < oldest:
            minimum = ".".join(map(str, oldest))
            yield error(package, f"{found} is too old: {minimum} or newer is needed", install)
        elif package == "ray" and (reason := fast_start.reason_for_stock_start(allowed=True, version=found)):
            yield warning(package, f"{found} starts a few seconds slower than it could: {reason}", install)
        else:
            yield ok(package, found)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def _pools(settings: Settings) -> Iterator[Check]:
    from daybreak_server.batching.iterations import strategy_names
    from daybreak_server.settings.pool_workload import workload_spec
    from daybreak_server.workloads import discovery

    for name, pool in settings.pools.items():
        what = f"pool {name}"
        try:
            spec = workload_spec(pool)
            spec.limits(pool.workload_options)
        except discovery.WrongKindError as exc:
            yield error(what, str(exc), f"correct pools.{name}.kind or .workload")
            continue
        except discovery.UnknownWorkloadError as exc:
            yield error(what, str(exc), f"correct {environment_variable('pools', name, 'workload')}")
            continue
        except Exception as exc:  # a third-party workload may raise anything
            yield error(what, f"its options are wrong: {exc}", f"correct pools.{name}.options or .model")
            continue
        try:
            strategy_names.find(pool.session_settings.strategy)
        except ValueError as exc:
            variable = environment_variable("pools", name, "sessions", "strategy")
            yield error(what, str(exc), f"correct {variable}")
            continue
        # `_packages` has checked what the video workload needs; importing torch here would take seconds.
        if spec.name != "video":
            try:
                discovery.implementation(spec)
            except Exception as exc:
                advice = (
                    f"install what {spec.implementation} imports, or correct `implementation` in the spec"
                )
                yield error(
                    what, f"{spec.implementation} cannot be imported, so no group can start: {exc}", advice
                )
                continue
        group = f"{pool.groups} group(s) of {pool.ranks} rank(s)"
        if pool.model is not None and pool.model.startswith("s3://"):
            yield from _remote_model(what, settings, pool.model, group)
        elif pool.model is not None and not Path(pool.model).is_dir():
            yield error(what, f"there is no folder {pool.model}", f"correct pools.{name}.model")
        elif spec.name in _VERIFIED:
            yield from _local_model(what, spec.name, pool, group)
        else:
            yield ok(what, f"{spec.name}, {group}")


def _remote_model(what: str, settings: Settings, url: str, group: str) -> Iterator[Check]:
    """Whether the model exists in S3, and how large it is."""
    from daybreak_server.adapters.blobs.model_source import S3Model
    from daybreak_server.ports.blobs import BlobError

    try:
        files = S3Model(url, settings.artifacts.s3).files()
    except BlobError as exc:
        problem, _, advice = str(exc).partition("; ")
        yield error(what, problem, advice or "correct pools.<pool>.model or artifacts.s3")
        return
    size = sum(file.size_bytes for file in files)
    yield ok(
        what, f"{group}, {url}: {len(files)} files, {size / 1e9:.1f} GB, cached in {settings.model_cache}"
    )


def _local_model(what: str, spec: str, pool: PoolSettings, group: str) -> Iterator[Check]:
    """Whether the pool's model can be loaded. ``daybreakd models verify`` makes the same check."""
    if spec == "video":
        from daybreak_server.workloads.video.spec.model_folder import BUILT_IN
        from daybreak_server.workloads.video.spec.verify import verify
    else:
        from daybreak_server.workloads.speech.spec import TINY as BUILT_IN
        from daybreak_server.workloads.speech.verify import verify

    folder = Path(pool.model) if pool.model else BUILT_IN
    findings = verify(folder)
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        yield error(what, errors[0] + more, f"run `daybreakd models verify {folder}` for details")
        return
    info = next((finding.message for finding in findings if finding.level == "info"), str(folder))
    yield ok(what, f"{spec}, {group}, {'' if pool.model else 'built-in '}{info}")


def _artifacts(settings: Settings) -> Iterator[Check]:
    from daybreak_server.adapters.blobs import open_blobs
    from daybreak_server.ports.blobs import BlobError

    url = masked(settings.artifacts.url)
    try:
        open_blobs(settings.artifacts).probe()
    except BlobError as exc:
        problem, _, advice = str(exc).partition("; ")
        yield error("files", problem, advice or "correct DAYBREAK_ARTIFACTS__URL")
    else:
        yield ok("files", f"files in {url} can be written, read and deleted")


def _port(settings: Settings) -> Iterator[Check]:
    host, port = settings.http.host, settings.http.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            # Servers bind with SO_REUSEADDR too, so that connections in TIME_WAIT do not keep a port busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE and _is_own(settings):
            yield ok(
                "port", f"{host_port(host, port)} is used by the Daybreak that runs in {settings.data_dir}"
            )
        elif exc.errno == errno.EADDRINUSE:
            yield warning(
                "port",
                f"{host_port(host, port)} is in use, perhaps by a running Daybreak",
                "stop the process that listens there, or set DAYBREAK_HTTP__PORT to another port (0: any free port)",
            )
        else:
            advice = "correct DAYBREAK_HTTP__HOST and DAYBREAK_HTTP__PORT"
            yield error("port", f"cannot listen on {host_port(host, port)}: {exc}", advice)
    else:
        yield ok("port", f"{host_port(host, port)} is free" if port else f"{host}, any free port")


def _is_own(settings: Settings) -> bool:
    """Whether the Daybreak that runs in ``settings.data_dir`` listens on the port of these settings."""
    url = running_state(settings.data_dir).get("url")
    return isinstance(url, str) and urlsplit(url).port == settings.http.port


def _disk(settings: Settings) -> Iterator[Check]:
    for folder in _folders(settings):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        found = f"{free / GIB:.1f} GiB free for {folder}"
        if not os.access(existing, os.W_OK):
            yield error(
                "disk", f"{existing} is not writable", "let this user write there, or set another folder"
            )
        elif free < GIB / 4:
            yield error("disk", found, "free some space, or set a folder on a larger disk")
        elif free < 4 * GIB:
            yield warning("disk", found, "keep some GiB free: Redis, logs and videos grow here")
        else:
            yield ok("disk", found)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir() and (room := shutil.disk_usage(shared).total) < GIB / 4:
        yield warning(
            "shared memory",
            f"{shared} has {room / (1 << 20):.0f} MiB",
            "give Ray 256 MiB or more (docker run --shm-size=1g): it is slow with less",
        )


def _folders(settings: Settings) -> list[Path]:
    """The folders whose disks are checked: the data folder, and a local blob store if it is elsewhere."""
    from daybreak_server.adapters.blobs import folder_of

    folders = [settings.data_dir]
    if settings.artifacts.url.startswith("file:"):
        files = folder_of(settings.artifacts.url)
        if settings.data_dir not in files.parents:
            folders.append(files)
    return folders


def _processors(settings: Settings) -> Iterator[Check]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    ranks = sum(pool.groups * pool.ranks for pool in settings.pools.values())
    found = f"{cpus} CPU(s) for {ranks} rank(s)"
    if ranks > cpus:
        advice = "lower pools.<pool>.ranks or .groups: ranks that share a CPU are slow"
        yield warning("processors", found, advice)
    else:
        yield ok("processors", found)


def _gpus(settings: Settings) -> Iterator[Check]:
    names = _gpu_names()
    cuda = [pool for pool in settings.pools.values() if pool.device == "cuda"]
    needed = sum(pool.groups * pool.ranks * pool.gpus_per_rank for pool in cuda)
    found = ", ".join(names) if names else "nvidia-smi shows none"
    if needed > len(names):
        yield error(
            "gpus",
            f"{found}; the pools with device `cuda` need {needed:g}",
            "install the driver, or lower pools.<pool>.ranks, .groups, .gpus_per_rank, or set .device to cpu",
        )
    else:
        yield ok("gpus", found if names else f"{found}; the pools run on CPUs")


def _gpu_names() -> list[str]:
    """The GPUs that ``nvidia-smi`` lists. torch knows them too, but importing it would take seconds."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]
