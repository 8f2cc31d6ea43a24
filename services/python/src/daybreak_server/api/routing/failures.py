"""What happens if a request gets no answer from a group: the error that the client sees, and the outcome in metrics."""

from __future__ import annotations

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError
from daybreak_server.domain.causes import Cause
from daybreak_server.ports.upstreams import UpstreamError

CANNOT_START_RETRY_AFTER_S = 120.0
"""``Retry-After`` if the groups of a pool cannot start. In this time, even a group in its longest pause between two
tries can try again and load its model."""


def outcome_of(error: BaseException) -> str:
    """The outcome in metrics and traces."""
    if isinstance(error, ApiError):
        return error.code
    return ErrorCode.INTERNAL if isinstance(error, Exception) else "cancelled"


def too_many_waiting(limit: str) -> ApiError:
    """The waiting requests have reached ``limit``: ``waiting``, ``waiting_per_tenant`` or ``buffered_bytes``."""
    return ApiError(
        ErrorCode.QUEUE_FULL, "Too many requests are waiting for a group. Retry later.", limit=limit
    )


def no_group_can_start(pool: str, cause: Cause) -> ApiError:
    """The groups of the pool cannot load their model."""
    return ApiError(
        ErrorCode.NOT_READY,
        f"No group of the pool {pool} can start: {cause.message.rstrip('.')}. An administrator must correct the model. "
        "The groups try again by themselves.",
        retry_after_s=CANNOT_START_RETRY_AFTER_S,
    )


def deadline_passed() -> ApiError:
    """The deadline of the request has passed."""
    return ApiError(
        ErrorCode.DEADLINE_PASSED, "The deadline passed before the answer began. Allow more time."
    )


def group_failed(group: str, cause: UpstreamError) -> ApiError:
    """The group has begun an answer that is not valid."""
    return ApiError(ErrorCode.GROUP_FAILED, f"The answer of the group {group} cannot be passed on: {cause}.")
