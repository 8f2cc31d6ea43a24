"""What an echo task takes. Importable without torch."""

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
    """Which faults a task may ask for; a pool's option ``faults`` (a list) narrows it."""

    faults: tuple[str, ...] = FAULTS


class EchoParams(BaseModel):
    """Says a message back, in as many steps and with such faults as a test wants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str = Field("hello", max_length=10_000, description="Comes back in the artifact `echo.txt`.")
    steps: int = Field(5, ge=0, le=10_000, description="Steps of the work.")
    step_s: float = Field(0.0, ge=0, le=3600, description="Seconds that each step takes.")
    step_kind: StepKind = Field(
        "sleep",
        description="What a step does meanwhile: sleep, compute in Python, or hold the interpreter's lock.",
    )
    artifact_bytes: int = Field(
        0, ge=0, le=1 << 30, description="Size of a second artifact, `echo.bin`; 0: none."
    )
    preview: bool = Field(False, description="Show a tiny picture at each step.")
    all_ranks: bool = Field(False, description="Each step is a collective of all ranks.")
    fail_at: int | None = Field(None, ge=0, description="Fail in this step (1 is the first).")
    fail_kind: Fault = Field(
        "error", description="How: an error, a permanent one, a dead process, or no end."
    )
    fail_attempts: int = Field(0, ge=0, description="Only in the first so many attempts; 0: in every one.")
    fail_rank: int | None = Field(None, ge=0, description="Only on this rank; absent: on all.")

    @model_validator(mode="after")
    def _only_allowed_faults(self, info: ValidationInfo) -> Self:
        context: Mapping[str, Any] = info.context or {}
        limits = context.get("limits")
        if (
            self.fail_at is not None
            and isinstance(limits, EchoLimits)
            and self.fail_kind not in limits.faults
        ):
            raise ValueError(f"this pool allows the faults {', '.join(limits.faults)}, not {self.fail_kind}")
        return self


def _limits(options: Mapping[str, Any]) -> EchoLimits:
    return EchoLimits(faults=tuple(options.get("faults", FAULTS)))


def _cost(params: EchoParams) -> float:
    """Seconds, and a little for what every task takes."""
    return 0.01 + params.steps * max(params.step_s, 0.0001)


SPEC: WorkloadSpec[EchoParams] = WorkloadSpec(
    name="echo",
    Params=EchoParams,
    implementation="daybreak_server.workloads.echo.workload:Echo",
    limits=_limits,
    cost=_cost,
)
