"""The client of Daybreak: hand in long GPU jobs, follow every step, fetch the result.

>>> from daybreak import Client
>>> with Client() as client:
...     task = client.submit("video", {"prompt": "a red circle moving left"})
...     for event in client.events(task):
...         print(event.type, event.data)
...     client.download(task.id, "video.mp4", "circle.mp4")
"""

from daybreak.aio import AsyncClient
from daybreak.core.calls import Preview, TaskRef
from daybreak.core.retry import Retry
from daybreak.errors import (
    ApiError,
    AuthError,
    BadRequestError,
    ConfigError,
    ConflictError,
    DaybreakError,
    DownloadError,
    InvalidInputError,
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
from daybreak.sync import Client
from daybreak.transport import VERSION
from daybreak.wire import Artifact, Event, EventType, Pool, Priority, SubmitRequest, Task, TaskState

__version__ = VERSION

__all__ = [
    "ApiError",
    "Artifact",
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
    "__version__",
]
