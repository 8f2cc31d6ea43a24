"""The requests that the workload ``embed`` understands, and their answers.

``POST /v1/embeddings``  as in OpenAI's API: a text, a list of texts, a list of token ids, or a list of such lists
``POST /embedding/api``  ``{"input": […], "is_query": true}`` → a bare list of vectors
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text_batches.requests import (
    CUT_HEADER,
    body_of,
    check_count,
    choice_of,
    flag_of,
    number_of,
    text_of,
    texts_of,
    wrong,
)

INPUT_TYPES = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
}
"""Maps each value of ``input_type`` (also those of Cohere and NVIDIA) to the kind of text that it means."""
DECIMALS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """What a request asks for: the vectors of texts, or of lists of token ids.

    ``api``: the API whose format the answer has. ``kind``: ``query`` or ``document``, which decides the prompt.
    ``fields``: the name of each text or list in error messages.
    """

    api: Literal["openai", "plain"]
    kind: str
    texts: Sequence[str] = ()
    ids: Sequence[Sequence[Any]] = ()
    fields: Sequence[str]
    dimensions: int | None = None
    base64: bool = False


def read_openai(request: Request, *, max_inputs: int, dimensions: int) -> EmbedRequest:
    """The request of ``/v1/embeddings``. :raises RequestError: if it is wrong."""
    body = body_of(request)
    given = body.get("input")
    texts, ids = _inputs(given, max_inputs)
    wanted = number_of(body, "dimensions")
    if wanted is not None and wanted > dimensions:
        wrong("dimensions", f"dimensions is {wanted}; vectors of this model have {dimensions}.")
    return EmbedRequest(
        api="openai",
        kind=choice_of(body, "input_type", INPUT_TYPES, default="document"),
        texts=texts,
        ids=ids,
        fields=_fields(given, texts or ids),
        dimensions=wanted,
        base64=choice_of(body, "encoding_format", {"float": False, "base64": True}, default="float"),
    )


def read_plain(request: Request, *, max_inputs: int) -> EmbedRequest:
    """The request of ``/embedding/api``. :raises RequestError: if it is wrong."""
    body = body_of(request)
    given = body.get("input")
    texts = (
        [text_of(body, "input")] if isinstance(given, str) else texts_of(given, "input", max_texts=max_inputs)
    )
    kind = "query" if flag_of(body, "is_query", default=False) else "document"
    return EmbedRequest(api="plain", kind=kind, texts=texts, fields=_fields(given, texts))


def answer(
    wanted: EmbedRequest, vectors: Sequence[Any], *, model: str, tokens: int, cut: Sequence[int]
) -> Response:
    """The answer. ``vectors``: numpy arrays, in the order of the request. ``cut``: the indexes of the cut texts."""
    vectors = [_shortened(vector, wanted.dimensions) for vector in vectors]
    value: Any
    if wanted.api == "plain":
        value = [_floats(vector) for vector in vectors]
    else:
        encode = _base64 if wanted.base64 else _floats
        data: list[dict[str, Any]] = [
            {"object": "embedding", "index": number, "embedding": encode(vector)}
            for number, vector in enumerate(vectors)
        ]
        for number in cut:
            data[number]["cut"] = True
        value = {
            "object": "list",
            "data": data,
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    response = Response.of_json(value)
    if not cut:
        return response
    numbers = ",".join(map(str, cut[:500]))
    return Response(headers={**response.headers, CUT_HEADER: numbers}, body=response.body)


def shown(vector: Any, *, dimensions: int | None, base64: bool) -> Any:
    """A vector as JSON: its numbers, or their bytes in base64."""
    vector = _shortened(vector, dimensions)
    return _base64(vector) if base64 else _floats(vector)


def _inputs(given: Any, max_inputs: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """The texts of an input, or its lists of token ids. One of the two results is empty."""
    if given is None:
        wrong("input", "input is missing. Send a text, or a list of texts.")
    if isinstance(given, str):
        return [text_of({"input": given}, "input")], ()
    if not isinstance(given, list):
        wrong("input", "input must be a text, a list of texts, or lists of token ids.")
    if given and all(isinstance(each, int) and not isinstance(each, bool) for each in given):
        return (), [given]
    if given and isinstance(given[0], list):
        check_count(len(given), "input", max_texts=max_inputs)
        for number, each in enumerate(given):
            if not isinstance(each, list):
                wrong(f"input.{number}", f"input.{number} must be a list of token ids, as the others.")
        return (), given
    return texts_of(given, "input", max_texts=max_inputs), ()


def _fields(given: Any, inputs: Sequence[Any]) -> list[str]:
    """The field name of each input: ``input`` for a single text or list of ids, else ``input.0``, ``input.1``, …"""
    if isinstance(given, str) or inputs[0] is given:
        return ["input"]
    return [f"input.{number}" for number in range(len(inputs))]


def _shortened(vector: Any, dimensions: int | None) -> Any:
    """The first ``dimensions`` numbers of a vector, scaled to length 1. A vector that has this size is not changed."""
    if dimensions is None or dimensions == len(vector):
        return vector
    import numpy as np

    kept = vector[:dimensions]
    return kept / max(float(np.linalg.norm(kept)), 1e-12)


def _floats(vector: Any) -> list[float]:
    found: list[float] = vector.astype("float64").round(DECIMALS).tolist()
    return found


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
