"""Finds workloads: by name among the entry points ``daybreak.workloads``, or as ``package.module:SPEC``."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from daybreak_server.domain.kinds import PoolKind
from daybreak_server.workloads.base import Workload, WorkloadSpec
from daybreak_server.workloads.inputs import UnusableSpecError, refuse_unusable

GROUP = "daybreak.workloads"


class UnknownWorkloadError(LookupError):
    """There is no such workload, or it cannot be used. The message lists the workloads, or says what is wrong."""


class WrongKindError(UnknownWorkloadError):
    """This version does not serve the workload's kind, or the pool does not fit this kind: it has another kind, or has
    settings or a number of ranks that this kind does not allow."""


_ONLINE_ONLY = (PoolKind.ONLINE,)
_KINDS_OF = {"target_load": (PoolKind.ONLINE, PoolKind.SESSIONS), "sessions": (PoolKind.SESSIONS,)}
"""Setting → the kinds of pools that may have it. The other settings in ``not_for_jobs`` are only for pools of
kind ``online`` (``_ONLINE_ONLY``)."""


def spec(
    name: str, *, kind: str | None = None, not_for_jobs: Collection[str] = (), ranks: int = 1
) -> WorkloadSpec[Any]:
    """The spec of a workload. ``name`` is the workload's name (``video``), or ``package.module:ATTRIBUTE``.

    :param kind: The kind of its pool, if the pool states one.
    :param not_for_jobs: The settings of its pool that only a pool of kind ``online`` or ``sessions`` may have.
    :param ranks: The number of ranks in a group of its pool.
    :raises UnknownWorkloadError: when there is no such workload, or it cannot be used in this pool.
    """
    if ":" in name:
        loaded = _attribute(name)
    else:
        matches = _installed().select(name=name)
        if not matches:
            known = ", ".join(sorted(_installed().names)) or "none"
            raise UnknownWorkloadError(f"no workload {name!r} is installed; installed are: {known}")
        loaded = next(iter(matches)).load()
    if not isinstance(loaded, WorkloadSpec):
        raise UnknownWorkloadError(f"workload {name!r} is a {type(loaded).__name__}, not a WorkloadSpec")
    try:
        refuse_unusable(loaded)
    except UnusableSpecError as exc:
        raise UnknownWorkloadError(f"workload {name!r} cannot be used: {exc}") from exc
    if loaded.kind not in [*PoolKind]:
        served = ", ".join(PoolKind)
        raise WrongKindError(f"workload {name!r} has the kind {loaded.kind!r}; this version serves: {served}")
    if kind is not None and kind != loaded.kind:
        raise WrongKindError(
            f"workload {name!r} has the kind {loaded.kind!r}, but its pool has {kind!r}; correct the pool's kind, or "
            "leave it out"
        )
    refused = [setting for setting in not_for_jobs if loaded.kind not in _KINDS_OF.get(setting, _ONLINE_ONLY)]
    if refused:
        allowed = [
            f"{setting} is for pools of the kind {' or '.join(_KINDS_OF.get(setting, _ONLINE_ONLY))}"
            for setting in refused
        ]
        raise WrongKindError(
            f"workload {name!r} has the kind {loaded.kind!r}, so its pool cannot have {', '.join(refused)}; leave "
            f"that out: {', '.join(allowed)}"
        )
    if loaded.kind == PoolKind.SESSIONS and ranks > 1:
        raise WrongKindError(
            f"workload {name!r} has the kind 'sessions', whose groups have one rank, but its pool has {ranks}; set "
            "ranks to 1, and groups to as many as you need"
        )
    return loaded


def implementation(workload_spec: WorkloadSpec[Any]) -> Workload[Any]:
    """Create an object of the workload's class. This imports what the workload needs (torch, …).

    :raises UnknownWorkloadError: when the class cannot be imported.
    """
    workload: Workload[Any] = _attribute(workload_spec.implementation)()
    return workload


@cache
def _installed() -> EntryPoints:
    """The entry points of all installed workloads. The search reads a file of each package, so it runs once."""
    return entry_points(group=GROUP)


def _attribute(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise UnknownWorkloadError(f"cannot import {path!r}: {exc}") from exc
