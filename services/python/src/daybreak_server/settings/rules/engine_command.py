"""The command that starts an engine: a template of words, which no shell interprets.

Each word may contain placeholders in braces. ``{args}`` must be a whole word. The model's options replace it.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated

from pydantic import AfterValidator

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PLACEHOLDERS = ("source", "alias", "host", "port", "args")


def words_of(command: str) -> list[str]:
    """The words of a command. An empty command has none.

    :raises ValueError: if a quote is not closed, a placeholder is unknown, ``{port}`` is missing, or ``{args}`` is only
        a part of a word.
    """
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise ValueError(f"the command cannot be split into words ({exc}); check its quotes") from None
    found = {name for word in words for name in PLACEHOLDER.findall(word)}
    if unknown := sorted(found - set(PLACEHOLDERS)):
        raise ValueError(
            f"the placeholder {{{unknown[0]}}} is unknown; there are {{{'}, {'.join(PLACEHOLDERS)}}}"
        )
    if any("{args}" in word and word != "{args}" for word in words):
        raise ValueError("{args} must be a word of its own, because it becomes several words")
    if words and "port" not in found:
        raise ValueError("the command must contain {port}, so that the worker knows where the engine listens")
    return words


def _checked(command: str) -> str:
    words_of(command)
    return command


EngineCommand = Annotated[str, AfterValidator(_checked)]
