"""A workload whose input changes when it is dumped and validated again. The artifact shows what ``run`` received."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field, field_validator
from pydantic.alias_generators import to_camel

from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec


class ConvertedInputParams(BaseModel):
    """``run`` receives ``tags`` as a list and ``double`` doubled. The default of ``seed`` is random."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    frame_count: int
    tags: list[str]
    double: int
    seed: int = Field(default_factory=lambda: random.getrandbits(40))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.frame_count * len(self.tags)

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: str) -> list[str]:
        return value.split(",")

    @field_validator("double")
    @classmethod
    def _twice(cls, value: int) -> int:
        return value * 2


class Account(BaseModel):
    """A nested model with a secret."""

    token: SecretStr


class SecretParams(BaseModel):
    """Parameters with a secret in a nested model. Daybreak must refuse a workload that has them."""

    account: Account | None = None


SPEC: WorkloadSpec[ConvertedInputParams] = WorkloadSpec(
    name="converted_input",
    Params=ConvertedInputParams,
    implementation="testkit.converted_input:ConvertedInput",
)
SECRET = replace(SPEC, Params=SecretParams)


class ConvertedInput:
    """Writes the parameters that ``run`` received into the artifact ``seen.txt``."""

    def load(self, group: Group) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def run(self, task: Task[ConvertedInputParams], ctx: Context) -> Iterator[Step]:
        params = task.params
        path = ctx.workdir / "seen.txt"
        path.write_text(f"{params.frame_count} {params.tags} {params.double} {params.seed}")
        ctx.artifact(path, content_type="text/plain")
        yield Step(phase="converted_input", fraction=1.0)
