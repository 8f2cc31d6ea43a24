"""A workload that strains its own process: steps that hold Python's lock, for a while or for ever.

Named in a pool as ``workload: verification.faults.system.stress_workload:SPEC``. It needs no torch.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec


class StressParams(BaseModel):
    """What each step does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str = Field("strain", max_length=200, description="Comes back in the artifact `strain.txt`.")
    steps: int = Field(3, ge=1, le=1000, description="Steps of the work.")
    hold_s: float = Field(
        0.0, ge=0, le=3600, description="Seconds that each step holds Python's lock, in one C call."
    )
    stuck_at: int | None = Field(None, ge=1, description="This step holds it for ever.")
    stuck_attempts: int = Field(1, ge=0, description="Only in the first so many attempts; 0: in every one.")
    rank: int = Field(0, ge=0, description="On this rank; the others wait for it at the step's end.")


class Stress:
    """Implements :class:`daybreak_server.workloads.base.Workload`."""

    def __init__(self) -> None:
        self._group = Group()

    def load(self, group: Group) -> None:
        """Nothing is loaded."""
        self._group = group

    def warm_up(self) -> None:
        """Nothing is warmed up."""

    def run(self, task: Task[StressParams], ctx: Context) -> Iterator[Step]:
        """Hold, step by step."""
        params = task.params
        for number in range(1, params.steps + 1):
            if params.rank == self._group.rank:
                stuck = params.stuck_at == number and (
                    not params.stuck_attempts or task.attempt <= params.stuck_attempts
                )
                hold_the_lock(float("inf") if stuck else params.hold_s)
            yield Step(phase="strain", fraction=number / params.steps, step=number, steps=params.steps)
        if self._group.leader:
            path = ctx.workdir / "strain.txt"
            digest = hashlib.sha256(f"{params.message}/{params.steps}".encode()).hexdigest()
            path.write_text(f"{digest}\n", encoding="utf-8")
            ctx.artifact(path, content_type="text/plain; charset=utf-8")


def hold_the_lock(seconds: float) -> None:
    """Sleep in C without letting Python's lock go: no other thread of this process runs meanwhile.

    ``PyDLL`` calls keep the lock, where ``CDLL`` calls release it; ``nanosleep`` is one call however long it is.
    """
    if seconds <= 0:
        return
    seconds = min(seconds, 10 * 365 * 86400.0)
    libc = ctypes.PyDLL(None)
    libc.nanosleep(ctypes.byref(_Timespec(int(seconds), int(seconds % 1 / 1e-9))), None)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


SPEC: WorkloadSpec[StressParams] = WorkloadSpec(
    name="strain", Params=StressParams, implementation="verification.faults.system.stress_workload:Stress"
)
