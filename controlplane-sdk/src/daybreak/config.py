"""Where the server is and who asks: the one file of the client that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "DAYBREAK_URL"
KEY_VARIABLE = "DAYBREAK_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a client needs to know before its first request."""

    url: str = DEFAULT_URL
    api_key: str | None = None

    @classmethod
    def load(cls, *, url: str | None = None, api_key: str | None = None) -> Config:
        """What is given, else ``DAYBREAK_URL`` and ``DAYBREAK_API_KEY``, else the defaults."""
        environment = os.environ
        chosen = url or environment.get(URL_VARIABLE) or DEFAULT_URL
        return cls(url=chosen.rstrip("/"), api_key=api_key or environment.get(KEY_VARIABLE) or None)


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings of Daybreak and no others, for a server of one's own."""
    inherited = os.environ.items()
    return {name: value for name, value in inherited if not name.startswith("DAYBREAK")} | dict(settings)
