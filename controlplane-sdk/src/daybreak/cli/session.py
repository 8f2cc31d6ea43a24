"""What the options before the command say, for every command."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from daybreak.core.retry import Retry
from daybreak.sync import Client

ATTEMPTS = 4
"""Somebody waits: say within two seconds that the server cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where the server is."""

    url: str | None = None

    def client(self) -> Client:
        """A client for one command. Raises ``ConfigError``."""
        return Client(self.url, retry=Retry(attempts=ATTEMPTS))


def session_of(context: typer.Context) -> Session:
    """The session that the main callback made."""
    found = context.find_object(Session)
    return found if found is not None else Session()
