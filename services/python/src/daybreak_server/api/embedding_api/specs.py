"""The OpenAPI description of the routes that embed and rerank."""

from __future__ import annotations

from typing import Any

from daybreak.wire import ErrorCode as Code
from daybreak_server.api.task_api.openapi_specs import route_spec

_CODES = (
    Code.BAD_HEADER,
    Code.NO_SUCH_POOL,
    Code.MODEL_NOT_FOUND,
    Code.CONFLICT,
    Code.INVALID_INPUT,
    Code.TOO_LARGE,
    Code.QUEUE_FULL,
    Code.NOT_READY,
    Code.GROUP_FAILED,
    Code.DEADLINE_PASSED,
    Code.SHUTTING_DOWN,
)
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
_FLAG: dict[str, Any] = {"type": "boolean"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _spec(name: str, answer: str, body: dict[str, Any] | None) -> dict[str, Any]:
    return route_spec(name, *_CODES, ok={200: (answer, None)}, body=body, media={"application/json": {}})


EMBEDDINGS = _spec(
    "embeddings",
    "The vectors, in the order of the inputs.",
    _object(
        ["input"],
        input={"oneOf": [_TEXT, _TEXTS, _IDS, {"type": "array", "items": _IDS}]},
        model=_TEXT,
        input_type={"enum": ["query", "document"], "default": "document"},
        encoding_format={"enum": ["float", "base64"], "default": "float"},
        dimensions={"type": "integer", "minimum": 1},
    ),
)
EMBEDDING_API = _spec(
    "embedding_api",
    "The vectors, in the order of the inputs.",
    _object(["input"], input={"oneOf": [_TEXT, _TEXTS]}, is_query={**_FLAG, "default": False}),
)
_DOCUMENT = {"oneOf": [_TEXT, _object(["text"], text=_TEXT)]}
_RANKED = _object(
    ["query", "documents"],
    query=_TEXT,
    documents={"type": "array", "items": _DOCUMENT},
    model=_TEXT,
    top_n={"type": "integer", "minimum": 1},
    return_documents={**_FLAG, "default": False},
)
RERANK_V1 = _spec("rerank", "The documents, the best first.", _RANKED)
RERANK_V2 = _spec("rerank_v2", "The documents, the best first.", _RANKED)
RERANK_TEI = _spec(
    "rerank_tei",
    "The texts, the best first.",
    _object(
        ["query", "texts"],
        query=_TEXT,
        texts=_TEXTS,
        raw_scores={**_FLAG, "default": False},
        return_text={**_FLAG, "default": False},
        truncate={**_FLAG, "default": False},
    ),
)
RERANKER_API = _spec(
    "reranker_api",
    "A score for each pair.",
    _object(["questions", "texts"], questions={"oneOf": [_TEXT, _TEXTS]}, texts=_TEXTS),
)
DEBUG = _spec("debug", "The state of one group of the pool, or of the pool if no group is ready.", None)
BATCHING = route_spec(
    "get_batching",
    Code.BAD_HEADER,
    Code.NO_SUCH_POOL,
    Code.CONFLICT,
    Code.STORE_UNAVAILABLE,
    ok={200: ("The current values, and which of them an administrator has changed.", None)},
    media={"application/json": {}},
)
SET_BATCHING = route_spec(
    "set_batching",
    Code.BAD_HEADER,
    Code.BAD_JSON,
    Code.FORBIDDEN,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.TOO_LARGE,
    Code.INVALID_INPUT,
    Code.NO_SUCH_POOL,
    Code.CONFLICT,
    Code.STORE_UNAVAILABLE,
    ok={200: ("The current values.", None)},
    body={"type": "object"},
    media={"application/json": {}},
)
