"""The spec of the workload ``embed``, and the options of its pools. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.bulk import BulkParams
from daybreak_server.workloads.text_batches.options import TextOptions, parse

Kind = Literal["query", "document"]
"""Whether a text is a search query or a document."""


class EmbedOptions(TextOptions):
    """The options of a pool of the workload ``embed``."""

    prompts: dict[Kind, str] = Field(default_factory=dict)
    """The text that is put before each query, and the text that is put before each document. If one of the two is
    unset, the model's own prompt with the same name (``query`` or ``document``) is used."""
    cache_mb: float = Field(0.0, ge=0, le=1 << 20)
    """The size of the cache of vectors in MB; 0: none."""


class EmbedParams(BulkParams):
    """The input of a task: a file. Each of its lines is a text, or an object with the field ``text``."""

    input_type: Kind = Field("document", description="What the texts are: `query` or `document`.")
    dimensions: int | None = Field(
        None, ge=1, description="How many numbers of each vector to keep, from the first on. Default: all."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="A list of numbers, or their little-endian float32 bytes in base64."
    )


def options_of(options: Mapping[str, Any]) -> EmbedOptions:
    """The options. :raises pydantic.ValidationError: with a line for each wrong option."""
    return parse(EmbedOptions, options)


SPEC: WorkloadSpec[EmbedParams] = WorkloadSpec(
    name="embed",
    kind="online",
    Params=EmbedParams,
    implementation="daybreak_server.workloads.embed.workload:Embed",
    capacity=64,
    batches=True,
    limits=options_of,
)
