"""What a workload is: the one interface between Daybreak and the code that does the work.

A workload is two small things:

* a :class:`WorkloadSpec`, importable without torch, which the API uses to validate and price a task's input;
* a class with ``load`` and ``run`` (:class:`Workload`), imported only by the ranks of a group.

``run`` is a generator that every rank of the group executes in lockstep: all ranks yield the same number of
times, and **each yield is the point where all ranks agree** whether to go on, cancel, hand back or expire.
When they agree to stop, the generator is closed (``GeneratorExit`` is raised at the yield) on every rank.

Errors: raise :class:`PermanentError` when trying again cannot help; any other exception counts as a strike and
is tried again, also ``SystemExit`` and ``KeyboardInterrupt``. Never catch ``GeneratorExit`` without raising it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from daybreak_server.domain.kinds import PoolKind

P = TypeVar("P", bound=BaseModel)


class WorkloadError(Exception):
    """Base of what a workload raises on purpose.

    ``WorkloadError``
      ├── ``PermanentError``   the task fails now, as a dead letter; ``code`` goes into ``error.code``
      ├── ``RetryableError``   a strike: tried again after a backoff (as is any other exception)
      └── ``ModelMissingError``  of ``load``: the group cannot start, and no task is to blame
    """

    code = "workload_failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class PermanentError(WorkloadError):
    """Trying again cannot help."""


class RetryableError(WorkloadError):
    """Trying again may help."""


class ModelMissingError(WorkloadError):
    """The model is not there, or is none that this workload can run; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The process group that a workload lives in, as one rank sees it.

    With ``size > 1`` the default ``torch.distributed`` group is initialised before ``load`` is called
    (gloo on CPU, NCCL on GPU); a workload may build its own meshes on it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    """The pool's ``options`` from the settings, plus ``model`` (a folder, or absent for the built-in one)."""

    @property
    def leader(self) -> bool:
        """Whether this rank talks to the outside: rank 0."""
        return self.rank == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[P]):
    """One attempt at a task, as a workload sees it."""

    id: str
    params: P
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a workload yields: how far it is.

    ``fraction`` is of the whole task, in 0..1, and never falls. Numbers may be of numpy or torch; a value that is not
    finite, not a number or not whole where it must be is a permanent error (``invalid_step``). ``snapshot`` gives the
    state from which ``run`` can go on after this step; it is called on the leader only, and only when a checkpoint is
    due, so it must not use collectives. On a GPU, yield a step only after its work has finished on the device.
    """

    phase: str
    fraction: float
    step: int = 0
    steps: int = 0
    snapshot: Callable[[], bytes] | None = None


class Context(Protocol):
    """What a running task may ask of its group. On followers every method but ``resume`` does nothing."""

    @property
    def workdir(self) -> Path:
        """A scratch folder of this attempt, removed afterwards."""

    @property
    def resume(self) -> bytes | None:
        """The latest snapshot of an earlier attempt, the same bytes on every rank; ``None`` starts at 0.

        A workload checks the snapshot's fingerprint itself, and starts at 0 where it does not match.
        """

    def resumed_from(self, step: int) -> None:
        """Say that ``resume`` was taken and the work goes on after ``step``."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line (≤ 2,000 characters) to the task's event stream."""

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Show a picture of the work so far (≤ 32 KiB; a larger one is refused)."""

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """Leave a file; it is uploaded after ``run`` has ended and published when the task succeeds.

        Its name (else that of its path) keeps letters and digits of every script and its ending; the rest becomes
        ``-``. Two names that some file system takes for the same are told apart by a number.
        """


class Workload(Protocol[P]):
    """The work itself. One object lives in each rank of a group, for the group's whole life."""

    def load(self, group: Group) -> None:
        """Make the model resident. Called once, on every rank."""

    def warm_up(self) -> None:
        """Run once what the first task would otherwise pay for. Called on every rank after ``load``."""

    def run(self, task: Task[P], ctx: Context) -> Iterator[Step]:
        """Do one task, yielding after each step. Called on every rank with the same task."""


def _no_limits(options: Mapping[str, Any]) -> Any:
    return None


def _unit_cost(params: Any) -> float:
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec(Generic[P]):
    """A workload as the API sees it; importing it must not import torch.

    ``limits`` makes, from the pool's options, the object that validators of ``Params`` find as
    ``info.context["limits"]``. ``cost`` prices a task in units that are proportional to its run time within
    a pool; estimates come from it and the pool's own history.
    """

    name: str
    kind: str = PoolKind.JOBS
    """What the groups of its pools do: a :class:`~daybreak_server.domain.kinds.PoolKind`."""
    Params: type[P]
    implementation: str
    """``package.module:Class``, imported by the ranks only."""
    limits: Callable[[Mapping[str, Any]], Any] = _no_limits
    cost: Callable[[P], float] = _unit_cost

    def validate(self, data: Mapping[str, Any], options: Mapping[str, Any]) -> P:
        """The parsed input. :raises pydantic.ValidationError: with one entry per wrong field."""
        return self.Params.model_validate(data, context={"limits": self.limits(options)})
