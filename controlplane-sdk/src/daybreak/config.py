"""The server's URL and the API key. No other module of the client reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "DAYBREAK_URL"
KEY_VARIABLE = "DAYBREAK_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The server and the key that a client uses."""

    url: str = DEFAULT_URL
    api_key: str | None = None

    @classmethod
    def load(cls, *, url: str | None = None, api_key: str | None = None) -> Config:
        """Take each value from its argument, else from ``DAYBREAK_URL`` or ``DAYBREAK_API_KEY``, else the default."""
        environment = os.environ  # noqa: TID251 - the one module of the client that reads it
        chosen = url or environment.get(URL_VARIABLE) or DEFAULT_URL
        return cls(url=chosen.rstrip("/"), api_key=api_key or environment.get(KEY_VARIABLE) or None)


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with ``settings`` in place of every inherited ``DAYBREAK…`` variable."""
    inherited = os.environ.items()  # noqa: TID251 - as above
    return {name: value for name, value in inherited if not name.startswith("DAYBREAK")} | dict(settings)
