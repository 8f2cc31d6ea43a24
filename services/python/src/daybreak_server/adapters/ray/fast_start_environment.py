"""Settings of Ray itself that let Ray start sooner. Ray's programs read them from their environment.

This module does not import Ray, so that a process which only starts Ray can set these variables quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FAST_START_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        # The raylet first tries to connect to its object store before the store listens. By default, it retries
        # after 1 s.
        "RAY_raylet_client_connect_timeout_milliseconds": "20",
        "RAY_raylet_client_num_connect_attempts": "1500",
        # By default Ray's workers have a low priority (nice 15). Here they do the main work of the node.
        "RAY_worker_niceness": "0",
    }
)
