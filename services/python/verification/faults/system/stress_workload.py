"""A workload that stresses its own process: its steps hold the GIL, for a while or forever.

A pool uses it with ``workload: verification.faults.system.stress_workload:SPEC``. It does not need torch.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec


class StressParams(BaseModel):
    """The parameters of a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str = Field(
        "stress", max_length=200, description="Changes the digest in the artifact `stress.txt`."
    )
    steps: int = Field(3, ge=1, le=1000, description="The number of steps.")
    hold_s: float = Field(
        0.0, ge=0, le=3600, description="How many seconds each step holds the GIL, in one C call."
    )
    stuck_at: int | None = Field(None, ge=1, description="The step that holds the GIL forever.")
    stuck_attempts: int = Field(
        1, ge=0, description="How many attempts, from the first on, get stuck. 0: all attempts."
    )
    rank: int = Field(
        0, ge=0, description="The rank that holds the GIL. The other ranks wait for it at the step's end."
    )


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
        """Hold the GIL in each step."""
        params = task.params
        for number in range(1, params.steps + 1):
            if params.rank == self._group.rank:
                stuck = params.stuck_at == number and (
                    not params.stuck_attempts or task.attempt <= params.stuck_attempts
                )
                hold_the_lock(float("inf") if stuck else params.hold_s)
            yield Step(phase="stress", fraction=number / params.steps, step=number, steps=params.steps)
        if self._group.leader:
            path = ctx.workdir / "stress.txt"
            digest = hashlib.sha256(f"{params.message}/{params.steps}".encode()).hexdigest()
            path.write_text(f"{digest}\n", encoding="utf-8")
            ctx.artifact(path, content_type="text/plain; charset=utf-8")


def hold_the_lock(seconds: float) -> None:
    """Sleep in C without releasing the GIL, so that no other thread of this process can run.

    Calls through ``PyDLL`` keep the GIL; calls through ``CDLL`` release it. One call of ``nanosleep``
    can last as long as needed.
    """
    if seconds <= 0:
        return
    seconds = min(seconds, 10 * 365 * 86400.0)
    libc = ctypes.PyDLL(None)
    libc.nanosleep(ctypes.byref(_Timespec(int(seconds), int(seconds % 1 / 1e-9))), None)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


SPEC: WorkloadSpec[StressParams] = WorkloadSpec(
    name="stress", Params=StressParams, implementation="verification.faults.system.stress_workload:Stress"
)
