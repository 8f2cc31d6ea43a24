"""The interface of a workload whose groups answer requests and also run tasks with JSONL files.

The input of such a task names a JSONL file. The group reads it line by line and passes the values to
:meth:`BulkWorkload.bulk`, at most 128 at a time. The results become the lines of a JSONL file, the artifact of the
task. The engine reads the file, handles lines that cannot be read, and stores checkpoints and the artifact. The
workload only turns values into results.

The group computes the results while it answers requests. Whether requests go first depends on the workload: ``embed``
and ``rerank`` pass the values to their batches with a lower priority than the inputs of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from daybreak_server.workloads.base import WorkloadError

P_contra = TypeVar("P_contra", bound=BaseModel, contravariant=True)


class LineError(WorkloadError):
    """The error of a line without a result. The error's message and ``code`` go into the output in place of the
    result, or the task fails with them (:attr:`BulkParams.on_error` decides)."""

    code = "invalid_line"


class BulkInput(BaseModel):
    """The file of a task: a file in a place that the pool's settings name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str = Field(min_length=1, max_length=63, description="A name in the pool's setting `bulk.places`.")
    path: str = Field(min_length=1, max_length=900, description="The path of the file in that place.")


class BulkArtifact(BaseModel):
    """The file of a task: an artifact of an earlier task of the same tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = Field(min_length=1, max_length=100, description="The id of a task that has succeeded.")
    artifact: str = Field(min_length=1, max_length=180, description="The name of its artifact.")
    key: str | None = Field(
        None,
        max_length=900,
        description="Where the artifact is stored. The server fills it in; do not send it.",
    )


def _kind_of(file: Any) -> str | None:
    """Which of the two classes an object is meant to be, so that errors mention that class only."""
    if not isinstance(file, Mapping | BulkInput | BulkArtifact):
        return None
    named = isinstance(file, BulkArtifact) or (
        isinstance(file, Mapping) and not file.keys().isdisjoint(BulkArtifact.model_fields)
    )
    return "<artifact>" if named else "<place>"


BulkFile = Annotated[
    Annotated[BulkInput, Tag("<place>")] | Annotated[BulkArtifact, Tag("<artifact>")],
    Discriminator(
        _kind_of,
        custom_error_type="file",
        custom_error_message="Input should be an object with `place` and `path`, or with `task` and `artifact`",
    ),
]


class BulkParams(BaseModel):
    """The fields of the input that all tasks with a file have. Workloads add fields of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: BulkFile = Field(
        description="The JSONL file.", examples=[{"place": "corpora", "path": "2026/texts.jsonl"}]
    )
    on_error: Literal["keep", "fail"] = Field(
        "keep",
        description="What becomes of a line without a result: `keep` writes its error into the output, `fail` fails "
        "the task.",
    )


class BulkWorkload(Protocol[P_contra]):
    """What a class needs beside ``serve`` so that its pool takes tasks. The ``params`` of its spec are a subclass of
    :class:`BulkParams`. The groups of the pool have one rank.

    The attribute ``bulk_version`` (optional, a text) says what the results depend on beside the input, such as the
    model. If this text changes, the next attempt computes all lines again, so no output has the results of two models.
    """

    def bulk(
        self, params: P_contra, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        """The result of each value, in order: a mapping that becomes JSON, or the error of a value without a result.

        Called on several threads at once, beside ``serve``. If a call raises, the engine tries the values in smaller
        parts. If a call with a single value raises, the error becomes the result of this value. A ``PermanentError``,
        a ``RetryableError``, or an error after which the device cannot be used ends the attempt instead. The attempt
        also ends if there are several values and the call for each single one raises.

        :param values: JSON values, one for each line that can be read.
        :param cancelled: Returns ``True`` once nobody needs the results any more. Each call of ``cancelled`` also
            counts as progress, so call it only while the work advances.
        """
