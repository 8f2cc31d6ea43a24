"""The routes of models and workers. The function of a route builds an :class:`ApiRequest` and sends nothing.

:func:`watch` and :func:`wait` read a model several times, so they return operations. All functions raise
``ArgumentError`` for an alias that no model can have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from daybreak.core.effects import Emit, HttpRequest, Operation, Sleep
from daybreak.core.replies import parse
from daybreak.core.retry import ApiRequest, Repeat, Retry, request_with_retries
from daybreak.core.routes import require_json
from daybreak.errors import ArgumentError, ModelFailedError, WaitTimeoutError
from daybreak.wire import Model, ModelDeleted, ModelList, ModelState, WorkerList

POLL_S = 0.5
"""How many seconds pass between two reads of a model that starts."""


def model_path(alias: str) -> str:
    """The path of a model. Raises ``ArgumentError`` if no model can have this alias."""
    try:
        quoted = quote(alias, safe="/:@")
    except UnicodeEncodeError as exc:
        raise ArgumentError(f"{alias!r} cannot be sent: it is not valid UTF-8") from exc
    if not quoted or any(part in ("", ".", "..") for part in alias.split("/")):
        raise ArgumentError(f"{alias!r} is not the alias of a model")
    return f"/v1/models/{quoted}"


def register_body(alias: str, source: str, args: Mapping[str, Any] | None, **fields: Any) -> dict[str, Any]:
    """The body of ``POST /v1/models/register``. For a field that is ``None``, the server uses its default.

    Raises ``ArgumentError`` for a value that JSON cannot represent.
    """
    body = {"alias": alias, "source": source, "args": None if args is None else dict(args), **fields}
    body = {name: value for name, value in body.items() if value is not None}
    for name, value in body.items():
        require_json(value, name)
    return body


def register(body: Mapping[str, Any]) -> ApiRequest[Model]:
    """``POST /v1/models/register``.

    If the answer to an attempt is lost, the next attempt gets 409. If the existing model has the values of ``body``, it
    counts as the model that the earlier attempt registered.
    """

    def is_mine(model: Model) -> bool:
        return all(getattr(model, name) == value for name, value in body.items() if name != "alias")

    shown = get(str(body["alias"]))
    return ApiRequest(
        request=HttpRequest(method="POST", path="/v1/models/register", json=dict(body)),
        read=lambda reply: parse(reply, Model),
        if_created=ApiRequest(
            request=shown.request, read=lambda reply: model if is_mine(model := shown.read(reply)) else None
        ),
    )


def get(alias: str) -> ApiRequest[Model]:
    """``GET /v1/models/{alias}``."""
    request = HttpRequest(method="GET", path=model_path(alias))
    return ApiRequest(request=request, read=lambda reply: parse(reply, Model))


def list_models() -> ApiRequest[tuple[Model, ...]]:
    """``GET /v1/models``."""
    request = HttpRequest(method="GET", path="/v1/models")
    return ApiRequest(request=request, read=lambda reply: tuple(parse(reply, ModelList).data))


def delete(alias: str) -> ApiRequest[ModelDeleted]:
    """``DELETE /v1/models/{alias}``."""
    return ApiRequest(
        request=HttpRequest(method="DELETE", path=model_path(alias)),
        read=lambda reply: parse(reply, ModelDeleted),
        repeat=Repeat.NOT_FOUND,
        result_if_deleted=ModelDeleted(id=alias),
    )


def workers() -> ApiRequest[WorkerList]:
    """``GET /v1/workers``."""
    request = HttpRequest(method="GET", path="/v1/workers")
    return ApiRequest(request=request, read=lambda reply: parse(reply, WorkerList))


def watch(
    alias: str, *, retry: Retry, until: float | None = None, clock: Callable[[], float] = time.monotonic
) -> Operation[Model]:
    """Emit the model now and after each change, until it is ready, it has failed, or ``clock`` reaches ``until``.

    Returns the model as it was read last. A model that a pool serves has no state: it is emitted once.
    """
    last: Model | None = None
    while True:
        model = yield from request_with_retries(get(alias), retry)
        if model != last:
            yield Emit(model)
        last = model
        ended = model.pool is not None or model.state in (ModelState.READY, ModelState.FAILED)
        remaining_s = POLL_S if until is None else until - clock()
        if ended or remaining_s <= 0:
            return model
        yield Sleep(min(POLL_S, remaining_s))


def wait(
    alias: str, *, timeout_s: float | None, retry: Retry, clock: Callable[[], float] = time.monotonic
) -> Operation[Model]:
    """Wait until the model is ready, and return it. A model that a pool serves is returned at once.

    Raises ``ModelFailedError`` if no worker could start the model, and ``WaitTimeoutError`` after ``timeout_s``.
    """
    until = None if timeout_s is None else clock() + timeout_s
    while True:
        model = yield from request_with_retries(get(alias), retry)
        if model.pool is not None or model.state is ModelState.READY:
            return model
        if model.state is ModelState.FAILED:
            raise ModelFailedError(model)
        remaining_s = POLL_S if until is None else until - clock()
        if remaining_s <= 0:
            raise WaitTimeoutError(f"the model {alias} is still {model.state} after {timeout_s:g} s")
        yield Sleep(min(POLL_S, remaining_s))
