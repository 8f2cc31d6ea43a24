"""The OpenAPI description of each route of workers and models."""

from __future__ import annotations

from daybreak.wire import ErrorCode as Code
from daybreak.wire import (
    Model,
    ModelDeleted,
    ModelList,
    RegisterModelRequest,
    ServingHealth,
    Worker,
    WorkerAssignments,
    WorkerHeartbeat,
    WorkerList,
    WorkerRegistered,
    WorkerRegistration,
)
from daybreak_server.api.task_api.openapi_specs import BODY, STORE, route_spec

_CHANGE = (Code.NO_KEY, Code.FORBIDDEN, *STORE)

REGISTER_WORKER = route_spec(
    "register_worker",
    *BODY,
    *_CHANGE,
    Code.CONFLICT,
    Code.NAME_NOT_RESOLVED,
    ok={201: ("The worker is registered.", WorkerRegistered)},
    body=WorkerRegistration,
)
HEARTBEAT = route_spec(
    "renew_worker",
    *BODY,
    *_CHANGE,
    Code.NOT_FOUND,
    Code.CONFLICT,
    ok={200: ("The models that the worker should run.", WorkerAssignments)},
    body=WorkerHeartbeat,
)
REMOVE_WORKER = route_spec(
    "remove_worker",
    *_CHANGE,
    Code.INVALID_INPUT,
    ok={204: ("This process of the worker is not registered (any more).", None)},
)
WORKERS = route_spec("list_workers", *STORE, ok={200: ("All workers.", WorkerList)})
WORKER = route_spec("get_worker", Code.NOT_FOUND, *STORE, ok={200: ("The worker.", Worker)})
SERVING_HEALTH = route_spec("health", *STORE, ok={200: ("The state.", ServingHealth)})
REGISTER_MODEL = route_spec(
    "register_model",
    *BODY,
    *_CHANGE,
    Code.CONFLICT,
    ok={201: ("The model is registered.", Model)},
    body=RegisterModelRequest,
)
MODELS = route_spec("list_models", Code.BAD_HEADER, *STORE, ok={200: ("All models.", ModelList)})
MODEL = route_spec(
    "get_model", Code.BAD_HEADER, Code.MODEL_NOT_FOUND, *STORE, ok={200: ("The model.", Model)}
)
DELETE_MODEL = route_spec(
    "delete_model",
    *_CHANGE,
    Code.MODEL_NOT_FOUND,
    ok={200: ("The model is deleted; its replicas finish their requests.", ModelDeleted)},
)
