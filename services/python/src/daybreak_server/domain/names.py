"""Names of pools, of their deployments and of settings. Several components must agree on these names."""

from __future__ import annotations

POOL_NAME = r"^[a-z][a-z0-9-]{0,30}$"
"""The pattern of pool names. A pool's name is part of the ids of its tasks."""

API_APPLICATION = "api"
"""The Ray Serve application of the API. Every other application has its pool's name, so no pool may have this name."""

REGISTRY = "registry"
"""The hash tag in the keys of the registry of workers and models. Pools use their names as hash tags, so no pool may
have this name."""

VARIABLES = "DAYBREAK_"
"""The prefix of the environment variables of all settings."""


def deployment_name(pool: str) -> str:
    """The name of a pool's Ray Serve deployment: ``VideoGenerator`` for ``video``."""
    return "".join(part.title() for part in pool.split("-")) + "Generator"


def environment_variable(*path: str) -> str:
    """The environment variable of a setting: ``DAYBREAK_HTTP__PORT`` for ``http``, ``port``."""
    return VARIABLES + "__".join(path).replace("-", "_").upper()
