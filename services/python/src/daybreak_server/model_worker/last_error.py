"""Finds the line of an engine's output that says why the engine ended, in a form that clients may see.

Engines write much when they fail. vLLM, for one, prints the traceback of the process that failed, and then that of its
parent, which only says that a child has failed. So this module returns the last line that begins with the name of an
exception and does not only point at another error. If there is no such line, it returns the last line with a word such
as ``failed`` that does not point at another error either. If there is none, it returns the last line of all. Passwords
in URLs are hidden, and so are the values of environment variables whose names sound like secrets, unless they are very
short.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from daybreak_server.settings.sources import masked

MAX_CHARS = 200
HIDDEN = "***"
_SECRET_NAME = re.compile(r"secret|token|passw|credential|key|auth", re.IGNORECASE)
_MIN_SECRET_CHARS = 6
"""Shorter values, such as `true`, are no secrets, and to replace them would hide ordinary words."""
_ANSI = re.compile(r"\x1b(\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")
_LOG_PREFIX = re.compile(
    r"^(\([\w =.-]+\)\s*|\[rank\d+\]:?\s*|(ERROR|CRITICAL|FATAL)\s+\d\d-\d\d \d\d:\d\d:\d\d\s+\[[^\]]*\]\s*)+"
)
"""What vLLM and torch write before a line: the process, the level, the time and the place in the code."""
_EXCEPTION = re.compile(r"^([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception|Interrupt|Exit)\b")
_ERROR = re.compile(
    r"\b(error|failed|failure|fatal|cannot|could not|out of memory|no such|not found)\b", re.IGNORECASE
)
_POINTER = re.compile(
    r"root cause above|see stack trace|exiting due to|ChildFailedError|CalledProcessError|SystemExit|"
    r"core initialization failed",
    re.IGNORECASE,
)
"""Lines that only say that something else has failed."""


def last_error(lines: Sequence[str], *, env: Mapping[str, str], only_errors: bool = False) -> str:
    """The line that says best why an engine ended, cut to ``MAX_CHARS`` characters; empty if there is none.

    :param lines: The end of the engine's output.
    :param env: The engine's environment, whose secrets are hidden.
    :param only_errors: If no line looks like an error, return an empty text instead of the last line.
    """
    plain = [_LOG_PREFIX.sub("", _ANSI.sub("", line).strip()) for line in lines]
    plain = [line for line in plain if line]
    for looks in (_EXCEPTION, _ERROR):
        for line in reversed(plain):
            if looks.search(line) and not _POINTER.search(line):
                return _shown(line, env)
    return _shown(plain[-1], env) if plain and not only_errors else ""


def _shown(line: str, env: Mapping[str, str]) -> str:
    for secret in _secrets(env):
        line = line.replace(secret, HIDDEN)
    line = str(masked(line))
    line = "".join(char if char.isprintable() else " " for char in line)
    line = line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"
    return line.rstrip(" .")


def _secrets(env: Mapping[str, str]) -> Collection[str]:
    """The values of variables whose names sound like secrets. Longer values come first, because they may contain
    shorter ones."""
    values = {
        value for name, value in env.items() if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET_CHARS
    }
    return sorted(values, key=lambda value: (-len(value), value))
