"""The client of Daybreak: submit long GPU jobs, follow every step, download the result.

>>> from daybreak import Client
>>> with Client() as client:
...     task = client.submit("video", {"prompt": "a red circle moving left"})
...     for event in client.events(task):
...         print(event.type, event.data)
...     client.download(task.id, "video.mp4", "circle.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daybreak.core.retry import Retry
from daybreak.core.routes import Preview, TaskRef
from daybreak.errors import (
    ApiError,
    ArgumentError,
    ArtifactNotFoundError,
    AuthError,
    BadRequestError,
    ConfigError,
    ConflictError,
    DaybreakError,
    DownloadError,
    InvalidInputError,
    ModelFailedError,
    NotFoundError,
    ProtocolError,
    QuotaError,
    ServerError,
    TaskCancelledError,
    TaskExpiredError,
    TaskFailedError,
    TransportError,
    UnavailableError,
    UnreachableError,
    WaitTimeoutError,
)
from daybreak.version import VERSION
from daybreak.wire import (
    Artifact,
    Event,
    EventType,
    LogLine,
    Model,
    ModelState,
    Pool,
    Priority,
    SubmitRequest,
    Task,
    TaskState,
    Worker,
)

if TYPE_CHECKING:
    from daybreak.aio import AsyncClient
    from daybreak.sync import Client

__version__ = VERSION

__all__ = [
    "ApiError",
    "ArgumentError",
    "Artifact",
    "ArtifactNotFoundError",
    "AsyncClient",
    "AuthError",
    "BadRequestError",
    "Client",
    "ConfigError",
    "ConflictError",
    "DaybreakError",
    "DownloadError",
    "Event",
    "EventType",
    "InvalidInputError",
    "LogLine",
    "Model",
    "ModelFailedError",
    "ModelState",
    "NotFoundError",
    "Pool",
    "Preview",
    "Priority",
    "ProtocolError",
    "QuotaError",
    "Retry",
    "ServerError",
    "SubmitRequest",
    "Task",
    "TaskCancelledError",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskRef",
    "TaskState",
    "TransportError",
    "UnavailableError",
    "UnreachableError",
    "WaitTimeoutError",
    "Worker",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a client on first use, so that a server that imports only ``daybreak.wire`` loads no HTTP client."""
    if name == "Client":
        from daybreak.sync import Client

        return Client
    if name == "AsyncClient":
        from daybreak.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
