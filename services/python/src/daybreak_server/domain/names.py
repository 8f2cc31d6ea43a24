"""Names that several parts must agree on without asking each other: of pools, of what runs them, of settings."""

from __future__ import annotations

POOL_NAME = r"^[a-z][a-z0-9-]{0,30}$"
"""What a pool may be called. It is part of its tasks' ids."""

API_APPLICATION = "api"
"""The Ray Serve application that answers HTTP. The others are called as their pools, so no pool has this name."""

VARIABLES = "DAYBREAK_"
"""What the environment variables of all settings begin with."""


def deployment_name(pool: str) -> str:
    """The Ray Serve deployment of a pool: ``VideoGenerator`` for ``video``."""
    return "".join(part.title() for part in pool.split("-")) + "Generator"


def environment_variable(*path: str) -> str:
    """The environment variable of a setting: ``DAYBREAK_HTTP__PORT`` for ``http``, ``port``."""
    return VARIABLES + "__".join(path).replace("-", "_").upper()
