"""``daybreakd doctor``: what Daybreak needs on this machine, and what to do where it is not there.

Every check gives one or more :class:`Check`; none changes anything, save that the store of files is probed
with a small file (and a local one's folder is made).
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from daybreak_server.adapters.ray import fast_start
from daybreak_server.cli.doctor import cluster, redis
from daybreak_server.cli.doctor.checks import Check, error, ok, version, warning
from daybreak_server.domain.names import environment_variable
from daybreak_server.settings.addresses import host_port
from daybreak_server.settings.sources import masked
from daybreak_server.settings.tree import PoolSettings, Settings

GIB = 1 << 30
OLDEST = {"ray": (2, 60), "torch": (2, 11)}
"""What the code is written for; older ones lack what it calls."""

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a person would mend things."""
    checks: list[Check] = []
    of_machine = (_packages, redis.examine, _pools, _artifacts, _port, _disk, _processors, _gpus)
    for check in (*of_machine, cluster.examine):
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


def _packages(settings: Settings) -> Iterator[Check]:
    """Ray runs the groups; torch and its companions run the video workload. ``dev`` needs none of them."""
    video = any(pool.workload == "video" for pool in settings.pools.values())
    wanted = {"ray": "ray", **({"torch": "video", "diffusers": "video", "av": "mp4"} if video else {})}
    for package, extra in wanted.items():
        found = version(package)
        install = f"pip install 'daybreak-server[{extra}]'; `daybreakd dev` runs without it"
        oldest = OLDEST.get(package, (0,))
        if found is None:
            yield error(package, "is not installed", install)
        elif _numbers(found) < oldest:
            yield error(package, f"{found} is too old", f"{'.'.join(map(str, oldest))} or newer: {install}")
        elif package == "ray" and (reason := fast_start.reason_for_stock_start(allowed=True, version=found)):
            yield warning(package, f"{found} starts some seconds slower", f"{reason}: {install}")
        else:
            yield ok(package, found)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def _pools(settings: Settings) -> Iterator[Check]:
    from daybreak_server.workloads import registry

    for name, pool in settings.pools.items():
        what = f"pool {name}"
        try:
            spec = registry.spec(pool.workload, kind=pool.kind)
            spec.limits(pool.workload_options)
        except registry.WrongKindError as exc:
            yield error(what, str(exc), f"correct pools.{name}.kind or .workload")
            continue
        except registry.UnknownWorkloadError as exc:
            yield error(what, str(exc), f"mend {environment_variable('pools', name, 'workload')}")
            continue
        except Exception as exc:  # a workload of somebody else may raise anything
            yield error(what, f"its options are not usable: {exc}", f"mend pools.{name}.options or .model")
            continue
        if spec.name != "video":  # whose parts are looked at one by one: importing torch takes seconds
            try:
                registry.implementation(spec)
            except Exception as exc:
                advice = f"its ranks need {spec.implementation}: install what it imports, or mend the spec"
                yield error(what, f"no group of it can start: {exc}", advice)
                continue
        group = f"{pool.groups} group(s) of {pool.ranks} rank(s)"
        if pool.model is not None and pool.model.startswith("s3://"):
            yield from _remote_model(what, settings, pool.model, group)
        elif spec.name == "video":
            yield from _video_model(what, pool, group)
        elif pool.model is not None and not Path(pool.model).is_dir():
            yield error(what, f"there is no folder {pool.model}", f"mend pools.{name}.model")
        else:
            yield ok(what, f"{spec.name}, {group}")


def _remote_model(what: str, settings: Settings, url: str, group: str) -> Iterator[Check]:
    """Whether the model is there, and whether this machine's cache has room for it."""
    from daybreak_server.adapters.blobs.model_source import S3Model
    from daybreak_server.ports.blobs import BlobError

    try:
        files = S3Model(url, settings.artifacts.s3).files()
    except BlobError as exc:
        problem, _, advice = str(exc).partition("; ")
        yield error(what, problem, advice or "mend the pool's model, or what its store of files says")
        return
    size = sum(file.size_bytes for file in files)
    yield ok(what, f"{group}, {url}: {len(files)} files, {size / 1e9:.1f} GB, kept in {settings.model_cache}")


def _video_model(what: str, pool: PoolSettings, group: str) -> Iterator[Check]:
    from daybreak_server.workloads.video.spec.model_folder import BUILT_IN
    from daybreak_server.workloads.video.spec.verify import verify

    folder = Path(pool.model) if pool.model else BUILT_IN
    findings = verify(folder)
    wrong = [one.message for one in findings if one.level == "error"]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield error(what, wrong[0] + more, f"daybreakd models verify {folder}")
        return
    info = next((one.message for one in findings if one.level == "info"), str(folder))
    yield ok(what, f"video, {group}, {'' if pool.model else 'built-in '}{info}")


def _artifacts(settings: Settings) -> Iterator[Check]:
    from daybreak_server.adapters.blobs import open_blobs
    from daybreak_server.ports.blobs import BlobError

    place = masked(settings.artifacts.url)
    try:
        open_blobs(settings.artifacts).probe()
    except BlobError as exc:
        problem, _, advice = str(exc).partition("; ")
        yield error("files", problem, advice or "mend DAYBREAK_ARTIFACTS__URL")
    else:
        yield ok("files", f"{place} can be written, read and deleted")


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
            yield warning(
                "port",
                f"{host_port(host, port)} is taken, perhaps by a Daybreak that runs already",
                "stop what listens there, or set DAYBREAK_HTTP__PORT to another (0: any free one)",
            )
        else:
            advice = "mend DAYBREAK_HTTP__HOST and DAYBREAK_HTTP__PORT"
            yield error("port", f"{host_port(host, port)} cannot be listened on: {exc}", advice)
    else:
        yield ok("port", f"{host_port(host, port)} is free" if port else f"{host}, any free port")


def _disk(settings: Settings) -> Iterator[Check]:
    for folder in _folders(settings):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        found = f"{free / GIB:.1f} GiB free for {folder}"
        if not os.access(there, os.W_OK):
            yield error("disk", f"{there} is not writable", "give this user the right, or set another")
        elif free < GIB / 4:
            yield error("disk", found, "free some space, or name a folder with more of it")
        elif free < 4 * GIB:
            yield warning("disk", found, "Redis, logs and videos grow here: keep some GiB free")
        else:
            yield ok("disk", found)
    shared = Path("/dev/shm")
    if shared.is_dir() and (room := shutil.disk_usage(shared).total) < GIB / 4:
        yield warning(
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
        yield warning(
            "processors", found, "ranks share CPUs: it works, slowly; fewer ranks or groups may be faster"
        )
    else:
        yield ok("processors", found)


def _gpus(settings: Settings) -> Iterator[Check]:
    names = _gpu_names()
    cuda = [pool for pool in settings.pools.values() if pool.device == "cuda"]
    wanted = sum(pool.groups * pool.ranks * pool.gpus_per_rank for pool in cuda)
    found = ", ".join(names) if names else "none seen (nvidia-smi)"
    if wanted > len(names):
        yield error(
            "gpus",
            f"{found}; the pools on `cuda` need {wanted:g}",
            "install the driver, or lower pools.<pool>.ranks, .groups, .gpus_per_rank, or set .device to cpu",
        )
    else:
        yield ok("gpus", found if names else f"{found}; the pools run on the CPU")


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
