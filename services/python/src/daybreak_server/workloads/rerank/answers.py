"""The requests that ``rerank`` understands, and their answers.

``POST /v1/rerank``, ``/v2/rerank``  Cohere's and Jina's: ``query``, ``documents``, ``top_n`` → ``results``, best first
``POST /rerank``                     of Text Embeddings Inference: ``query``, ``texts`` → a bare list, best first
``POST /reranker/api``               ``{"questions": […], "texts": […]}`` → a bare list of scores, in order
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from daybreak_server.workloads.rerank.model import Score
from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text_batches.requests import (
    CUT_HEADER,
    body_of,
    flag_of,
    number_of,
    text_of,
    texts_of,
    wrong,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """What a request asks for.

    ``api``: the API whose format the answer has. ``fields``: the name of each pair in error messages.
    """

    api: Literal["cohere", "tei", "plain"]
    pairs: Sequence[tuple[str, str]]
    fields: Sequence[str]
    top: int | None = None
    with_texts: bool = False
    raw: bool = False
    cut: bool = False
    """Whether the request allows that its texts are cut, even if the pool's options do not."""


def read_cohere(request: Request, *, max_inputs: int) -> RerankRequest:
    """The request of ``/v1/rerank`` and ``/v2/rerank``. :raises RequestError: if it is wrong."""
    body = body_of(request)
    query, given = text_of(body, "query"), body.get("documents")
    if isinstance(given, list):
        given = [each.get("text") if isinstance(each, dict) else each for each in given]
    documents = texts_of(given, "documents", max_texts=max_inputs)
    return RerankRequest(
        api="cohere",
        pairs=[(query, document) for document in documents],
        fields=[f"documents.{number}" for number in range(len(documents))],
        top=number_of(body, "top_n"),
        with_texts=flag_of(body, "return_documents", default=False),
    )


def read_tei(request: Request, *, max_inputs: int) -> RerankRequest:
    """The request of ``/rerank``. :raises RequestError: if it is wrong."""
    body = body_of(request)
    query, texts = text_of(body, "query"), texts_of(body.get("texts"), "texts", max_texts=max_inputs)
    if body.get("truncation_direction") not in (None, "right", "Right"):
        wrong(
            "truncation_direction",
            "truncation_direction must be Right, because texts are cut only at their end.",
        )
    return RerankRequest(
        api="tei",
        pairs=[(query, text) for text in texts],
        fields=[f"texts.{number}" for number in range(len(texts))],
        with_texts=flag_of(body, "return_text", default=False),
        raw=flag_of(body, "raw_scores", default=False),
        cut=flag_of(body, "truncate", default=False),
    )


def read_plain(request: Request, *, max_inputs: int) -> RerankRequest:
    """The request of ``/reranker/api``. One question may apply to all texts. :raises RequestError: if it is wrong."""
    body = body_of(request)
    given = body.get("questions")
    texts = texts_of(body.get("texts"), "texts", max_texts=max_inputs)
    questions = texts_of([given] if isinstance(given, str) else given, "questions", max_texts=max_inputs)
    if len(questions) == 1:
        questions = questions * len(texts)
    if len(questions) != len(texts):
        wrong(
            "questions",
            f"questions has {len(questions)} entries and texts has {len(texts)}. Send one question for each text, or "
            "one for all.",
        )
    return RerankRequest(
        api="plain",
        pairs=list(zip(questions, texts, strict=True)),
        fields=[f"texts.{number}" for number in range(len(texts))],
    )


def answer(
    wanted: RerankRequest, scores: Sequence[Score], *, model: str, tokens: int, cut: Sequence[int]
) -> Response:
    """The answer. ``scores``: in the order of the pairs. ``cut``: the numbers of the pairs that were cut."""
    found = [score.raw if wanted.raw else score.relevance for score in scores]
    response = Response.of_json(_VALUES[wanted.api](wanted, found, model, tokens, frozenset(cut)))
    if not cut:
        return response
    numbers = ",".join(map(str, cut[:500]))
    return Response(headers={**response.headers, CUT_HEADER: numbers}, body=response.body)


def _ranked(wanted: RerankRequest, scores: Sequence[float]) -> list[int]:
    """The numbers of the pairs, the best first. Pairs with equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda number: (-scores[number], number))[: wanted.top]


def _cohere(
    wanted: RerankRequest, scores: Sequence[float], model: str, tokens: int, cut: frozenset[int]
) -> Any:
    results = []
    for number in _ranked(wanted, scores):
        result: dict[str, Any] = {"index": number, "relevance_score": scores[number]}
        if wanted.with_texts:
            result["document"] = {"text": wanted.pairs[number][1]}
        if number in cut:
            result["cut"] = True
        results.append(result)
    return {
        "id": str(uuid.uuid4()),
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": tokens}},
    }


def _tei(wanted: RerankRequest, scores: Sequence[float], model: str, tokens: int, cut: frozenset[int]) -> Any:
    return [
        {"index": number, "score": scores[number]}
        | ({"text": wanted.pairs[number][1]} if wanted.with_texts else {})
        | ({"cut": True} if number in cut else {})
        for number in _ranked(wanted, scores)
    ]


def _plain(
    wanted: RerankRequest, scores: Sequence[float], model: str, tokens: int, cut: frozenset[int]
) -> Any:
    return list(scores)


_VALUES = {"cohere": _cohere, "tei": _tei, "plain": _plain}
