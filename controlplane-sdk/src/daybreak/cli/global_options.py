"""The global options, which come before the subcommand."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from daybreak.core.retry import Retry
from daybreak.sync import Client

ATTEMPTS = 4
"""A user waits for the command. With four attempts, the command reports an unreachable server within two seconds."""


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """The server that a command uses."""

    url: str | None = None

    def client(self) -> Client:
        """A client for one command. :raises ConfigError: if the URL, the API key or the environment cannot be used."""
        return Client(self.url, retry=Retry(attempts=ATTEMPTS))


def global_options(context: typer.Context) -> GlobalOptions:
    """The options that the main callback stored."""
    options = context.find_object(GlobalOptions)
    return options if options is not None else GlobalOptions()
