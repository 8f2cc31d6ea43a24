"""Adds the fields of WhisperLive's own server to the error ``sessions_full``. They say how many minutes to wait.

These fields do not collide with the fields of an error of OpenAI's or vLLM's API. So clients of WhisperLive, OpenAI and
vLLM can all read the same event.
"""

from __future__ import annotations

from typing import Any

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError


def wait_fields(error: ApiError, uid: str) -> dict[str, Any]:
    """The fields to add to an error. There are none unless the error says that the pool is full and when to retry.

    ``uid``: the name of the client. WhisperLive's clients ignore messages with another uid.
    """
    if error.code is not ErrorCode.SESSIONS_FULL or error.retry_after_s is None:
        return {}
    return {"uid": uid, "status": "WAIT", "message": error.retry_after_s / 60}
