"""Settings of Ray's own that let it start sooner. They are read by Ray's programs from their environment.

Imports no Ray: who starts a process hands these on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

QUICK: Mapping[str, str] = MappingProxyType(
    {
        # The raylet asks for its own object store before that listens, and by default asks again after a second.
        "RAY_raylet_client_connect_timeout_milliseconds": "20",
        "RAY_raylet_client_num_connect_attempts": "1500",
        # Ray's workers would yield to everything else (nice 15); here they are what a node is for.
        "RAY_worker_niceness": "0",
    }
)
