"""Computes how long a task waits after a strike: exponential backoff with jitter from the attempt's token.

The token makes the jitter reproducible, so the Lua script and the pure model agree to the millisecond.
"""

from __future__ import annotations

import hashlib
import math

from daybreak_server.domain.policy import BACKOFF_BASE_MS, BACKOFF_MAX_MS


def backoff_ms(strikes: int, token: str) -> int:
    """The delay in ms after strike number ``strikes``, which counts from 1.

    The full delay is ``2^(strikes-1)`` s, but never longer than 60 s. The result is between half of the full delay and
    the full delay.
    """
    digest = hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()
    unit = int(digest[:8], 16) / 2**32
    full = min(float(BACKOFF_MAX_MS), BACKOFF_BASE_MS * 2.0 ** (strikes - 1))
    return math.floor(full * (0.5 + 0.5 * unit))
