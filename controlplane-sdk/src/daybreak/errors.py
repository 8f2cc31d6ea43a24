"""What can go wrong, as one tree.

``DaybreakError``
  ├── ``ConfigError``              the URL or the key cannot be used at all
  ├── ``ArgumentError``            no request can carry this argument; a ``ValueError``, too. Nothing was sent
  ├── ``TransportError``           the connection broke: whether the server acted is not known
  │     └── ``UnreachableError``   it was never made: the server did nothing
  ├── ``ProtocolError``            the answer is not Daybreak's (another server at that address?)
  ├── ``ApiError``                 the server refused; carries its ``problem``
  │     ├── ``BadRequestError``    400, 405, 406, 413, 415, 431
  │     ├── ``AuthError``          401, 403
  │     ├── ``NotFoundError``      404
  │     ├── ``ConflictError``      409, and an Idempotency-Key that was used with another body
  │     ├── ``InvalidInputError``  422; ``fields`` says what is wrong with which field
  │     ├── ``QuotaError``         429; ``limit``, ``retry_after_s``
  │     ├── ``UnavailableError``   502, 503, 504; ``retry_after_s``
  │     └── ``ServerError``        any other 5xx: a bug of the server; its log has the ``request_id``
  ├── ``TaskFailedError``          ``wait``: the task ended without a result; carries the ``task``
  │     ├── ``TaskCancelledError``
  │     └── ``TaskExpiredError``
  ├── ``WaitTimeoutError``         ``wait``: the time is up; the task goes on
  ├── ``DownloadError``            the file that arrived is not the one that was promised
  └── ``RelayGapError``            ``daybreak.relay``: events are gone that this group has not seen; carry on behind
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daybreak.wire import FieldError, Problem, Task


class DaybreakError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigError(DaybreakError):
    """The URL or the key cannot be used at all."""


class ArgumentError(DaybreakError, ValueError):
    """No request can carry this argument, so nothing was sent."""


class TransportError(DaybreakError):
    """The connection broke, or an answer did not come in time: whether the server acted is not known."""


class UnreachableError(TransportError):
    """No connection could be made, so the server did nothing."""


class ProtocolError(DaybreakError):
    """The answer is not one that Daybreak gives."""


class ApiError(DaybreakError):
    """The server refused. ``code`` is stable; ``problem`` is all that it said."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.detail} ({problem.code})" if problem.detail else problem.title)
        self.problem = problem
        self.retry_after_s = retry_after_s if retry_after_s is not None else problem.retry_after_s

    @property
    def code(self) -> str:
        """A value of ``daybreak.wire.ErrorCode``, or ``http_<status>`` when something else answered."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def request_id(self) -> str | None:
        """What to look for in the server's log."""
        return self.problem.request_id


class BadRequestError(ApiError):
    """The request itself is malformed, too large or of a wrong type."""


class AuthError(ApiError):
    """The API key is missing, wrong, or does not allow this."""


class NotFoundError(ApiError):
    """No such task, pool or artifact, or it belongs to another tenant."""


class ConflictError(ApiError):
    """The task's state does not allow this, or the Idempotency-Key was used with another body."""


class InvalidInputError(ApiError):
    """The input is not valid."""

    @property
    def fields(self) -> tuple[FieldError, ...]:
        """What is wrong, by field (``input.frames``)."""
        return tuple(self.problem.errors)


class QuotaError(ApiError):
    """A limit of the tenant is reached."""

    @property
    def limit(self) -> str | None:
        """The name of the limit."""
        return self.problem.limit


class UnavailableError(ApiError):
    """The server cannot take this now; trying again may help."""


class ServerError(ApiError):
    """A bug of the server."""


class TaskFailedError(DaybreakError):
    """The task ended without a result."""

    def __init__(self, task: Task) -> None:
        # A task that was cancelled or expired may carry the error of an earlier attempt: that did not end it.
        error = task.error if task.state == "failed" else None
        reason = f": {error.message} ({error.code})" if error else ""
        super().__init__(f"{task.id} {task.state.value}{reason}")
        self.task = task


class TaskCancelledError(TaskFailedError):
    """The task was cancelled."""


class TaskExpiredError(TaskFailedError):
    """A deadline of the task passed."""


class WaitTimeoutError(DaybreakError, TimeoutError):
    """``wait`` gave up; the task goes on."""


class DownloadError(DaybreakError):
    """The file that arrived is not the one that was promised."""


class RelayGapError(DaybreakError):
    """Some events with ids between ``after`` and ``before`` (both excluded) are gone unseen; go on iterating.

    Their tasks are not: read their state from the API. ``before`` is ``None`` where the end is not known.
    """

    def __init__(self, why: str, *, after: str, before: str | None) -> None:
        super().__init__(f"{why}: events between {after} and {before or 'now'} may be missing")
        self.after = after
        self.before = before
