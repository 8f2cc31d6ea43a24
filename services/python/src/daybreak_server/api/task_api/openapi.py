"""The OpenAPI document, with examples for the pools of this server, and the page that shows it.

`docs_page` renders the page as plain HTML, so it works without internet access. Its example requests can be copied and
run unchanged.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse, JSONResponse, Response

from daybreak.wire import (
    BatchRequest,
    ErrorCode,
    Event,
    OpenSessionRequest,
    Problem,
    RegisterModelRequest,
    SubmitRequest,
    WorkerHeartbeat,
    WorkerRegistration,
)
from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX
from daybreak_server.api import path_prefix
from daybreak_server.api.errors import ApiError
from daybreak_server.api.intake.catalog import Catalog, PoolEntry
from daybreak_server.api.task_api import docs_page

VERSION = "1"
_DESCRIPTION = """\
Long GPU jobs as a service: submit a task, follow its steps, download its files.

Errors are `application/problem+json` with a stable `code`. Routes of another API, such as OpenAI's, \
report errors in the format of that API. A WebSocket at `/v1/tasks/{id}/ws?after=` sends \
the same objects as `/v1/tasks/{id}/events`. It closes with 1000 after the last event, and with 4404 if there \
is no such task.
"""
_METHODS = ("get", "post", "put", "patch", "delete")
_EXTRA: tuple[type[BaseModel], ...] = (
    SubmitRequest,
    BatchRequest,
    Problem,
    Event,
    RegisterModelRequest,
    OpenSessionRequest,
    WorkerRegistration,
    WorkerHeartbeat,
)
_ON_ALL_ROUTES = (ErrorCode.INTERNAL.value, ErrorCode.HOST_NOT_ALLOWED.value)
_MODIFYING = ("post", "put", "patch", "delete")
_TASK_LINKS = {
    "show": {"operationId": "get_task", "parameters": {"id": "$response.body#/id"}},
    "follow": {"operationId": "follow", "parameters": {"id": "$response.body#/id"}},
    "cancel": {"operationId": "cancel", "parameters": {"id": "$response.body#/id"}},
}


def install(app: FastAPI, catalog: Catalog) -> None:
    """Serve the document at ``/openapi.json`` and the page at ``/docs``."""
    built: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not built:
            built.update(build(app, catalog))
        return built

    app.openapi = document  # type: ignore[method-assign]

    async def docs() -> Response:
        """This API's documentation."""
        return HTMLResponse(docs_page.render(document(), path_prefix.current()))

    async def openapi_json() -> Response:
        """The OpenAPI document."""
        prefix = path_prefix.current()
        return JSONResponse({**document(), "servers": [{"url": prefix}]} if prefix else document())

    app.add_api_route("/openapi.json", openapi_json, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)


def build(app: FastAPI, catalog: Catalog) -> dict[str, Any]:
    """The document of this app. It depends on the code and the settings only."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        summary="Long GPU jobs as a service",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, more = models_json_schema(
        [(model, "validation") for model in _EXTRA], ref_template="#/components/schemas/{model}"
    )
    schemas.update(more.get("$defs", {}))
    for entry in catalog:
        if entry.takes_tasks:
            _add_input(schemas, entry)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for item in document["paths"].values():
        for method in _METHODS:
            if method in item:
                if method in _MODIFYING:
                    item[method].setdefault("x-problems", []).append(ErrorCode.ORIGIN_NOT_ALLOWED.value)
                _add_errors(item[method])
    _add_examples(document, catalog)
    return document


def _add_input(schemas: dict[str, Any], entry: PoolEntry) -> None:
    """Add the schema of the pool's input as ``Input_<pool>``, and each schema in it as ``Input_<pool>_<name>``."""
    own = f"Input_{entry.name}"
    schema = entry.spec.Params.model_json_schema(ref_template=f"#/components/schemas/{own}_{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        schemas[f"{own}_{name}"] = definition
    schemas[own] = schema


def _add_errors(operation: dict[str, Any]) -> None:
    """Add one response for each error status, with the error codes of that status. FastAPI's own 422 is removed."""
    responses = operation["responses"]
    responses.pop("422", None)
    by_status: dict[int, list[ErrorCode]] = {}
    for value in [*operation.pop("x-problems", []), *_ON_ALL_ROUTES]:
        code = ErrorCode(value)
        by_status.setdefault(code.status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": " · ".join(f"`{code.value}` {code.title}." for code in codes),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code.value: {"value": _example_problem(code)} for code in codes},
                }
            },
        }


def _example_problem(code: ErrorCode) -> dict[str, Any]:
    return {
        "type": TYPE_PREFIX + code.value,
        "title": code.title,
        "status": code.status,
        "code": code.value,
        "detail": "…",
    }


_OF_TYPE: dict[Any, Any] = {"integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {}}


def example_input(entry: PoolEntry) -> dict[str, Any]:
    """An example input for the pool: the workload's own example, or else the examples of its fields.

    A required field without an example gets a value of its type.
    """
    schema = entry.spec.Params.model_json_schema()
    for example in schema.get("examples", []):
        return dict(example)
    found = {}
    for name, field in schema.get("properties", {}).items():
        if field.get("examples"):
            found[name] = field["examples"][0]
        elif name in schema.get("required", []):
            found[name] = _OF_TYPE.get(field.get("type"), "a red circle moving left")
    return found


def _add_examples(document: dict[str, Any], catalog: Catalog) -> None:
    paths = document["paths"]
    tasks = {
        entry.name: {"pool": entry.name, "input": example_input(entry)}
        for entry in catalog
        if entry.takes_tasks
    }
    by_pool = {name: {"summary": f"To the pool {name}", "value": body} for name, body in tasks.items()}
    _set_examples(paths["/v1/tasks"]["post"], by_pool)
    _set_examples(paths["/v1/estimate"]["post"], by_pool)
    _set_examples(paths["/v1/tasks:batch"]["post"], {"all": {"value": {"tasks": list(tasks.values())}}})
    _add_model_examples(paths)
    try:
        video = catalog.default()
    except ApiError:
        del paths["/generate"]  # It submits to the video pool, which this server does not have.
    else:
        body = paths["/generate"]["post"]["requestBody"]["content"]["application/json"]
        body["schema"] = {"$ref": f"#/components/schemas/Input_{video.name}"}
        _set_examples(paths["/generate"]["post"], {"prompt": {"value": example_input(video)}})
    for path in ("/v1/tasks", "/generate"):
        if path in paths:
            paths[path]["post"]["responses"]["202"]["links"] = _TASK_LINKS
    names = [entry.name for entry in catalog]
    serving = [entry.name for entry in catalog if not entry.takes_tasks]
    _set_parameters(paths["/v1/pools/{name}"]["get"], name=names[0])
    _set_parameters(
        paths["/v1/pools/{name}/serve/{path}"]["post"], name=(serving or names)[0], path="v1/things"
    )


def _add_model_examples(paths: dict[str, Any]) -> None:
    """Add examples of a model, and of a worker that registers itself."""
    model = {"alias": "small", "source": "Qwen/Qwen3-0.6B", "max_model_len": 4096}
    state = {"incarnation": "6f1c", "gpus": [], "memory_bytes": 64 << 30, "memory_free_bytes": 60 << 30}
    worker = {"id": "gpu-1", "url": "http://127.0.0.1:7000", "version": "0.1.0", "engines": ["vllm"], **state}
    bodies = {
        ("/v1/models/register", "post"): model,
        ("/v1/workers", "post"): worker,
        ("/v1/workers/{id}", "put"): {**state, "draining": False, "models": []},
    }
    for (path, method), body in bodies.items():
        _set_examples(paths[path][method], {"example": {"value": body}})
    for path, names in (("/v1/models/{alias}", {"alias": "small"}), ("/v1/workers/{id}", {"id": "gpu-1"})):
        for operation in paths[path].values():
            _set_parameters(operation, **names)


def _set_parameters(operation: dict[str, Any], **examples: str) -> None:
    for parameter in operation["parameters"]:
        if parameter["name"] in examples:
            parameter["example"] = examples[parameter["name"]]


def _set_examples(operation: dict[str, Any], examples: dict[str, Any]) -> None:
    operation["requestBody"]["content"]["application/json"]["examples"] = examples
