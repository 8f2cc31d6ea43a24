"""The input of an echo task. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from daybreak_server.workloads.base import WorkloadSpec

StepKind = Literal["sleep", "compute", "hold_gil"]
Fault = Literal["error", "permanent", "exit", "hang"]
FAULTS: tuple[Fault, ...] = ("error", "permanent", "exit", "hang")


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoLimits:
    """The faults that a task may request. The pool's option ``faults`` (a list) restricts them."""

    faults: tuple[str, ...] = FAULTS


class EchoParams(BaseModel):
    """Returns a message after a number of steps. A task for a test may also request a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str = Field("hello", max_length=10_000, description="Text for the artifact `echo.txt`.")
    steps: int = Field(5, ge=0, le=10_000, description="Number of steps.")
    step_s: float = Field(0.0, ge=0, le=3600, description="Duration of a step, in seconds.")
    step_kind: StepKind = Field(
        "sleep",
        description="How a step spends its time: sleep, compute in Python, or hold the interpreter's lock.",
    )
    artifact_bytes: int = Field(
        0, ge=0, le=1 << 30, description="Size of a second artifact, `echo.bin`; 0: none."
    )
    preview: bool = Field(False, description="Publish a tiny picture at each step.")
    all_ranks: bool = Field(False, description="Run a collective of all ranks in each step.")
    fail_at: int | None = Field(None, ge=0, description="Fail in this step (1 is the first).")
    fail_kind: Fault = Field(
        "error", description="How to fail: retryable error, permanent error, exit of the process, or hang."
    )
    fail_attempts: int = Field(0, ge=0, description="How many attempts fail, from the first on; 0: all.")
    fail_rank: int | None = Field(None, ge=0, description="Fail only on this rank; absent: on all.")

    @model_validator(mode="after")
    def _only_allowed_faults(self, info: ValidationInfo) -> Self:
        context: Mapping[str, Any] = info.context or {}
        limits = context.get("limits")
        if (
            self.fail_at is not None
            and isinstance(limits, EchoLimits)
            and self.fail_kind not in limits.faults
        ):
            raise ValueError(
                f"this pool does not allow the fault {self.fail_kind}; it allows {', '.join(limits.faults)}"
            )
        return self


def _limits(options: Mapping[str, Any]) -> EchoLimits:
    return EchoLimits(faults=tuple(options.get("faults", FAULTS)))


def _cost(params: EchoParams) -> float:
    """Seconds of all steps, plus a little for the overhead of a task."""
    return 0.01 + params.steps * max(params.step_s, 0.0001)


SPEC: WorkloadSpec[EchoParams] = WorkloadSpec(
    name="echo",
    Params=EchoParams,
    implementation="daybreak_server.workloads.echo.workload:Echo",
    limits=_limits,
    cost=_cost,
)
