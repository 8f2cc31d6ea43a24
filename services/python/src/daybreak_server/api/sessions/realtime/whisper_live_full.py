"""Adds to the error ``sessions_full`` the fields with which WhisperLive's server says how many minutes to wait.

These fields do not collide with the fields of an error of OpenAI's or vLLM's API, so one event serves the clients of
all three.
"""

from __future__ import annotations

from typing import Any

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError


def wait_fields(error: ApiError, uid: str) -> dict[str, Any]:
    """The fields to add to an error which says that the pool is full; for other errors, none.

    ``uid``: the name of the client. WhisperLive's clients ignore messages with another uid.
    """
    if error.code is not ErrorCode.SESSIONS_FULL or error.retry_after_s is None:
        return {}
    return {"uid": uid, "status": "WAIT", "message": error.retry_after_s / 60}
