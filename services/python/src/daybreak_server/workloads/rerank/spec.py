"""The spec of ``rerank``, and its options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.bulk import BulkParams
from daybreak_server.workloads.text_batches.options import TextOptions, parse

QWEN_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN_BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
QWEN_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
QWEN_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


class RerankOptions(TextOptions):
    """The options of a pool of ``rerank``. The options from ``before`` to ``no`` are for language models only."""

    kind: Literal["auto", "cross-encoder", "language-model"] = "auto"
    """What the model is. ``auto``: the model's ``config.json`` decides."""
    before: str = QWEN_BEFORE
    """What a language model reads before the query and the document. The defaults are those of Qwen3-Reranker."""
    body: str = QWEN_BODY
    """The template for the query and the document. If the resulting text is too long, and the request or
    the option ``too_long`` allows a cut, the end of this text is cut."""
    after: str = QWEN_AFTER
    """What the model reads after the query and the document. The next word that the model writes is its judgement."""
    instruction: str = QWEN_INSTRUCTION
    yes: str = Field("yes", min_length=1)
    """The word with which the model says that the document is relevant. It must be one token."""
    no: str = Field("no", min_length=1)


def options_of(options: Mapping[str, Any]) -> RerankOptions:
    """The options. :raises pydantic.ValidationError: with a line for each wrong option."""
    return parse(RerankOptions, options)


SPEC: WorkloadSpec[BulkParams] = WorkloadSpec(
    name="rerank",
    kind="online",
    Params=BulkParams,
    implementation="daybreak_server.workloads.rerank.workload:Rerank",
    capacity=64,
    batches=True,
    limits=options_of,
)
