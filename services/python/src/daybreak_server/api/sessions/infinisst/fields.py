"""Reads the fields of a request: from its query, and from its body if that is JSON or a form."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from daybreak_server.api.errors import from_validation, invalid_field
from daybreak_server.api.http.request_body import header, not_json, read_bytes, read_json
from daybreak_server.settings.rules.numbers import NUMBER

M = TypeVar("M", bound=BaseModel)
_FORM = "application/x-www-form-urlencoded"


class Fields(BaseModel):
    """Fields of a request. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


Name = Annotated[str, Field(min_length=1, max_length=200)]
# The inner `str` has the length limit. If the union had the limit, pydantic would try to measure `None`, and fail.
OptionalName = Annotated[Annotated[str, Field(max_length=200)] | None, BeforeValidator(_absent_if_empty)]


class Init(Fields):
    """``POST /init``."""

    agent_type: Literal["InfiniSST"] = "InfiniSST"
    language_pair: Name
    client_id: OptionalName = None
    latency_multiplier: Annotated[int, NUMBER, Field(ge=1, le=8)] = 2
    evaluation_mode: bool = False
    pool: OptionalName = None


class SessionOnly(Fields):
    """The field of requests that only name a session."""

    session_id: Name


class LoadModel(Fields):
    """``POST /load_model``."""

    gpu_id: Annotated[int, NUMBER, Field(ge=0)]
    language_pair: Name
    pool: OptionalName = None


class Translate(Fields):
    """``POST /translate``. ``max_new_tokens`` is accepted without effect, because the model itself
    limits how many tokens a turn has."""

    user_id: Annotated[str, Field(min_length=1, max_length=100)]
    language_pair: Name
    audio_data: list[Annotated[float, Field(strict=True)]] = Field(default_factory=list)
    is_final: bool = False
    max_new_tokens: Annotated[Annotated[int, Field(ge=1)] | None, NUMBER] = None
    pool: OptionalName = None


async def read_fields(request: Request, model: type[M], *, max_bytes: int) -> M:
    """The fields. A field of the body takes precedence over the same field of the query.

    :raises ApiError: ``invalid_input``, ``bad_json``, ``unsupported_media_type`` or ``too_large``
    """
    found: dict[str, Any] = dict(request.query_params)
    content_type = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if content_type in {"", _FORM}:
        found |= _form(await read_bytes(request, max_bytes=max_bytes), content_type)
    else:
        found |= await read_json(request, max_bytes=max_bytes)
    try:
        return model.model_validate(found)
    except ValidationError as exc:
        raise from_validation(exc) from exc


def _form(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a form. Unless a user sets a Content-Type, ``curl -d`` sends even JSON with the type of a form."""
    if body.lstrip()[:1] in {b"{", b"["} or (body and not content_type):
        raise not_json(content_type)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        raise invalid_field("body", "The form is not valid UTF-8.") from None
