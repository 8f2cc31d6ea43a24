"""The errors of this package, as one tree.

``DaybreakError``
  ├── ``ConfigError``              the URL, the API key or the environment cannot be used
  ├── ``ArgumentError``            no request can carry this argument, so nothing was sent; also a ``ValueError``
  ├── ``TransportError``           the connection broke; the server may or may not have acted
  │     └── ``UnreachableError``   no connection was made; the server did nothing
  ├── ``ProtocolError``            the response is not one of Daybreak's; is another server at this address?
  ├── ``ApiError``                 the server returned an error; ``problem`` is the whole error
  │     ├── ``BadRequestError``    a 4xx not listed below: the request is malformed or too large, for example
  │     ├── ``AuthError``          401, 403
  │     ├── ``NotFoundError``      404
  │     ├── ``ConflictError``      409, and an Idempotency-Key that was used with another body
  │     ├── ``InvalidInputError``  422; ``fields`` lists the invalid fields
  │     ├── ``QuotaError``         429; ``limit``, ``retry_after_s``
  │     ├── ``UnavailableError``   502, 503, 504; ``retry_after_s``
  │     └── ``ServerError``        any other 5xx; from Daybreak itself, it is a bug: search the log for ``request_id``
  ├── ``TaskFailedError``          ``wait``: the task ended without a result; ``task`` is the task
  │     ├── ``TaskCancelledError``
  │     └── ``TaskExpiredError``
  ├── ``ModelFailedError``         ``models.wait``: no worker could start the model; ``model`` is the model
  ├── ``WaitTimeoutError``         ``wait``: the time is up; the task or model continues
  ├── ``DownloadError``            the artifact could not be downloaded; for example, it arrived damaged
  │     └── ``ArtifactNotFoundError``  the task has no artifact of this name
  └── ``RelayGapError``            ``daybreak.event_relay``: the consumer group missed events; iterate again to continue
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daybreak.wire import FieldError, Model, Problem, Task


class DaybreakError(Exception):
    """Base of the errors of this package."""


class ConfigError(DaybreakError):
    """The URL, the API key or the environment cannot be used."""


class ArgumentError(DaybreakError, ValueError):
    """No request can carry this argument. Nothing was sent."""


class TransportError(DaybreakError):
    """The connection broke, or the response did not arrive in time. The server may or may not have acted."""


class UnreachableError(TransportError):
    """No connection could be made, so the server did nothing."""


class ProtocolError(DaybreakError):
    """The response is not one of Daybreak's. Another server may be at this address."""


class ApiError(DaybreakError):
    """The server returned an error. ``code`` never changes for the same error; ``problem`` is the whole error."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.detail} ({problem.code})" if problem.detail else problem.title)
        self.problem = problem
        self.retry_after_s = retry_after_s if retry_after_s is not None else problem.retry_after_s

    @property
    def code(self) -> str:
        """A value of ``daybreak.wire.ErrorCode``, or ``http_<status>`` if something else responded."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def request_id(self) -> str | None:
        """The id to search for in the server's log."""
        return self.problem.request_id


class BadRequestError(ApiError):
    """The server refuses the request, for example because it is malformed, too large or of the wrong media type."""


class AuthError(ApiError):
    """The API key is missing or wrong, or does not allow the request."""


class NotFoundError(ApiError):
    """The task, session, pool, model or artifact does not exist, or belongs to another tenant."""


class ConflictError(ApiError):
    """The object's state does not allow the request, or the Idempotency-Key was used with another body."""


class InvalidInputError(ApiError):
    """The input is not valid."""

    @property
    def fields(self) -> tuple[FieldError, ...]:
        """The errors of the fields. A field is a path such as ``input.frames``."""
        return tuple(self.problem.errors)


class QuotaError(ApiError):
    """A limit is reached: of the tenant, of open streams, or of the pool's sessions."""

    @property
    def limit(self) -> str | None:
        """The name of the limit."""
        return self.problem.limit


class UnavailableError(ApiError):
    """The server cannot answer the request now. Retry later."""


class ServerError(ApiError):
    """The server failed. If Daybreak itself responded, it is a bug. But the response may be from a proxy or S3."""


class TaskFailedError(DaybreakError):
    """The task ended without a result."""

    def __init__(self, task: Task) -> None:
        # A cancelled or expired task may carry the error of an earlier attempt, but that error did not end the task.
        error = task.error if task.state == "failed" else None
        reason = f": {error.message} ({error.code})" if error else ""
        super().__init__(f"{task.id} {task.state.value}{reason}")
        self.task = task


class TaskCancelledError(TaskFailedError):
    """The task was cancelled."""


class TaskExpiredError(TaskFailedError):
    """A deadline of the task passed."""


class ModelFailedError(DaybreakError):
    """No worker could start the model. Workers try again by themselves."""

    def __init__(self, model: Model) -> None:
        super().__init__(f"the model {model.id} cannot start: {model.reason or 'no reason is known'}")
        self.model = model


class WaitTimeoutError(DaybreakError, TimeoutError):
    """``wait`` or ``models.wait`` reached its timeout. The task or the model continues."""


class DownloadError(DaybreakError):
    """The artifact could not be downloaded: it does not exist, its bytes do not match its size or SHA-256, or its name
    cannot be the name of a file.
    """


class ArtifactNotFoundError(DownloadError):
    """The task has no artifact of this name."""


class RelayGapError(DaybreakError):
    """The consumer group may have missed events between the ids ``after`` and ``before`` (both exclusive).

    Iterate again to continue after this gap. Only events are lost: read the state of their tasks from the API.
    ``before`` is ``None`` if the end of the gap is unknown.
    """

    def __init__(self, reason: str, *, after: str, before: str | None) -> None:
        super().__init__(f"{reason}: events between {after} and {before or 'now'} may be missing")
        self.after = after
        self.before = before
