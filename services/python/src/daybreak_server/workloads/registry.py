"""Finds workloads by name: entry points of the group ``daybreak.workloads``, or ``package.module:SPEC``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from daybreak_server.domain.kinds import PoolKind
from daybreak_server.workloads.base import Workload, WorkloadSpec
from daybreak_server.workloads.inputs import UnusableSpecError, refuse_unusable

GROUP = "daybreak.workloads"


class UnknownWorkloadError(LookupError):
    """No workload has that name, or it cannot be used; the message says what there is, or what is wrong with it."""


class WrongKindError(UnknownWorkloadError):
    """The workload is of a kind that this version does not serve, or of another than its pool says."""


def spec(name: str, *, kind: str | None = None) -> WorkloadSpec[Any]:
    """The workload called ``name`` (``video``), or found at ``package.module:ATTRIBUTE``.

    :param kind: what its pool says that it is, where it does
    :raises UnknownWorkloadError: when there is none, or it is of another kind or of one that is not served
    """
    if ":" in name:
        found = _attribute(name)
    else:
        matches = entry_points(group=GROUP, name=name)
        if not matches:
            known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
            raise UnknownWorkloadError(f"no workload {name!r} is installed; there are: {known}")
        found = next(iter(matches)).load()
    if not isinstance(found, WorkloadSpec):
        raise UnknownWorkloadError(f"{name!r} is a {type(found).__name__}, not a WorkloadSpec")
    try:
        refuse_unusable(found)
    except UnusableSpecError as exc:
        raise UnknownWorkloadError(f"{name!r} cannot be used: {exc}") from exc
    if found.kind not in [*PoolKind]:
        served = ", ".join(PoolKind)
        raise WrongKindError(
            f"workload {name!r} is of the kind {found.kind!r}; this version serves: {served}"
        )
    if kind is not None and kind != found.kind:
        raise WrongKindError(
            f"workload {name!r} is of the kind {found.kind!r}, but its pool says {kind!r}; correct the pool's kind, or "
            "leave it out"
        )
    return found


def implementation(of: WorkloadSpec[Any]) -> Workload[Any]:
    """A new object of the workload's class. Imports what the workload needs (torch, …)."""
    workload: Workload[Any] = _attribute(of.implementation)()
    return workload


def _attribute(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise UnknownWorkloadError(f"cannot import {path!r}: {exc}") from exc
