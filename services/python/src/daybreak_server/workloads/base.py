"""The interface of a workload: the one boundary between Daybreak and the code that does the work.

A workload has two parts:

* a :class:`WorkloadSpec`, importable without torch, with which the API validates a task's input and estimates its cost;
* a class with ``load`` and ``run`` (:class:`Workload`), which only the ranks of a group import. A workload that answers
  requests has ``serve`` instead of ``run`` (:mod:`~daybreak_server.workloads.serving`). The class for streaming
  sessions is in :mod:`~daybreak_server.workloads.sessions`.

``run`` is a generator that every rank of the group executes in lockstep. All ranks yield the same number of times, and
**at each yield all ranks agree** whether to continue, cancel, release the task or expire it. When they agree to stop,
the generator is closed on every rank: ``GeneratorExit`` is raised at the yield.

Errors: raise :class:`PermanentError` when a retry cannot help. Any other exception, even ``SystemExit`` or
``KeyboardInterrupt``, counts as a strike, and the task is retried unless that was the last allowed strike. Never catch
``GeneratorExit`` without raising it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from daybreak_server.domain.kinds import PoolKind
from daybreak_server.workloads.batch_meter import NO_BATCH_METER, BatchMeter
from daybreak_server.workloads.languages import LanguagePair

P = TypeVar("P", bound=BaseModel)


class WorkloadError(Exception):
    """Base of the errors that a workload raises on purpose.

    ``WorkloadError``
      ├── ``PermanentError``     the task fails at once, as a dead letter; ``code`` becomes its ``error.code``
      ├── ``RetryableError``     a strike: the task is retried after a backoff, as after any other exception
      └── ``ModelMissingError``  raised by ``load``: the group cannot start, and no task gets a strike
    """

    code = "workload_failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class PermanentError(WorkloadError):
    """A retry cannot help."""


class RetryableError(WorkloadError):
    """A retry may help."""


class ModelMissingError(WorkloadError):
    """The model is missing, or this workload cannot run it. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The process group that a workload runs in, as one rank sees it.

    With ``size > 1``, the default ``torch.distributed`` group (gloo on CPU, NCCL on GPU) is initialised before
    ``load``. A workload may build its own meshes on it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    """The pool's ``options`` from the settings. If the model is not the built-in one, Daybreak adds its folder as
    ``model``. If the pool's ``batching`` is set, Daybreak adds that too."""
    batch_meter: BatchMeter = NO_BATCH_METER
    """Receives the measurements of a workload that computes requests in batches."""

    @property
    def leader(self) -> bool:
        """Whether this is rank 0, whose output clients see."""
        return self.rank == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[P]):
    """One attempt at a task."""

    id: str
    params: P
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a workload yields: the progress of the task.

    ``fraction`` is the part of the whole task that is done, from 0 to 1. If it decreases, clients see the highest
    fraction so far. ``step`` and ``steps`` are whole numbers from 0 on. Numbers may be numpy or torch scalars. Any
    other value, infinity and NaN included, is a permanent error (``invalid_step``).

    ``snapshot`` returns the state from which ``run`` can continue after this step. It is called on the leader only,
    when a checkpoint is due or the task is released, so it must not use collectives. On a GPU, yield a step only after
    its work has finished on the device.
    """

    phase: str
    fraction: float
    step: int = 0
    steps: int = 0
    snapshot: Callable[[], bytes] | None = None


class Context(Protocol):
    """What Daybreak offers a running task. On followers, methods that write do nothing."""

    @property
    def workdir(self) -> Path:
        """A scratch folder, removed at the end of the attempt."""

    @property
    def resume(self) -> bytes | None:
        """The latest snapshot of an earlier attempt, the same bytes on every rank. ``None``: start at 0.

        The workload itself must check whether the snapshot fits the input and the model. If not, it must start at 0.
        """

    def resumed_from(self, step: int) -> None:
        """Report that the work continues from ``resume``, after ``step``."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line to the task's event stream. A line of more than 2,000 characters is cut.

        Lines that come too fast may be dropped; clients see how many.
        """

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Publish a picture of the work so far. A picture of more than 32 KiB is dropped, with a warning in the log."""

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """Add a file to the result. It is uploaded after ``run`` ends, and published when the task succeeds.

        The file is called ``name`` (default: the name of ``path``). The name keeps letters and digits of any script,
        ``.``, ``_`` and the extension; other characters become ``-``, and a long name is shortened. An artifact with
        exactly the same ``name`` replaces the earlier one. If a file system could confuse two different names, for
        example because it ignores case, the later one gets a number.
        """


class Workload(Protocol[P]):
    """The work itself. Each rank of a group has one such object, for as long as the group lives."""

    def load(self, group: Group) -> None:
        """Load the model. Called once, on every rank."""

    def warm_up(self) -> None:
        """Do once what would slow down the first task. Called on every rank, after ``load``."""

    def run(self, task: Task[P], ctx: Context) -> Iterator[Step]:
        """Do one task, and yield after each step. Called on every rank with the same task."""


class NoInput(BaseModel):
    """The input of a workload that takes no tasks."""


def _no_limits(options: Mapping[str, Any]) -> Any:
    return None


def _no_pairs(options: Mapping[str, Any]) -> Sequence[LanguagePair]:
    return ()


def _no_notice(options: Mapping[str, Any]) -> str:
    return ""


def _unit_cost(params: Any) -> float:
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec(Generic[P]):
    """A workload as the API sees it. Its module must not import torch.

    ``limits`` turns the pool's options into the object that validators of ``Params`` find as
    ``info.context["limits"]``. ``cost`` returns a number that is proportional to the run time of a task within a pool.
    From this number and the pool's history, Daybreak estimates waiting times, and the GPU time that a claim charges the
    tenant.
    """

    name: str
    kind: str = PoolKind.JOBS
    """The kind of its pools: a :class:`~daybreak_server.domain.kinds.PoolKind`."""
    Params: type[P] = NoInput  # type: ignore[assignment]  # for a workload that takes no tasks
    implementation: str
    """``package.module:Class``; only ranks import it."""
    capacity: int = 1
    """How many requests ``serve`` may answer at once in a group of one rank, if the pool's settings set no number.
    Kind ``online`` only."""
    batches: bool = False
    """Whether the workload has ``set_batching``, so that the pool's ``batching`` can be set, even on a running pool."""
    limits: Callable[[Mapping[str, Any]], Any] = _no_limits
    cost: Callable[[P], float] = _unit_cost
    pairs: Callable[[Mapping[str, Any]], Sequence[LanguagePair]] = _no_pairs
    """The language pairs of the pool's model, from the pool's options. Kind ``sessions`` only. The API refuses all
    other pairs. If the function returns no pairs, the groups decide."""
    notice: Callable[[Mapping[str, Any]], str] = _no_notice
    """Returns a sentence about what the pool's model cannot do, from the pool's options. Clients show the sentence."""

    @property
    def takes_tasks(self) -> bool:
        """Whether its pools take tasks. Pools of kind ``jobs`` always do; others do if ``Params`` is set."""
        return self.kind == PoolKind.JOBS or self.Params is not NoInput

    def validate(self, data: Mapping[str, Any], options: Mapping[str, Any]) -> P:
        """Parse and check an input. :raises pydantic.ValidationError: with an entry for each wrong field."""
        return self.Params.model_validate(data, context={"limits": self.limits(options)})
