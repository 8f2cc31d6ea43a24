"""Loads the Lua scripts: puts included fragments and key names before each, and hashes the result once.

A script begins with its ``#!lua`` line and names what it needs as ``-- include: clock common``. Fragments are
the files that begin with an underscore; they may include others, and each comes once, in order of need.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from daybreak_server.adapters.redis.keys import Keys, lua_names

Arg = str | bytes | int | float

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script, ready to be loaded."""

    name: str
    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script: which one, for which pool, with what."""

    script: str
    keys: Keys
    args: Sequence[Arg]


@dataclass(frozen=True, slots=True)
class Library:
    """All scripts. ``clock`` names the fragment that says what time it is.

    Production has only ``_clock.lua`` (the server's own clock). Tests of deadlines build a library with a
    clock of theirs; the scripts of production do not contain a way to set the time.
    """

    clock: str = "_clock.lua"
    clock_text: str | None = None

    def get(self, name: str) -> Script:
        """The script ``name``."""
        return _script(name, self.clock_text if self.clock_text is not None else _read(self.clock))


@cache
def _read(file: str) -> str:
    return (files("daybreak_server.adapters.redis") / "lua" / file).read_text(encoding="utf-8")


@cache
def _script(name: str, clock: str) -> Script:
    shebang, _, body = _read(f"{name}.lua").partition("\n")
    if not shebang.startswith("#!lua"):
        raise ValueError(f"{name}.lua does not begin with #!lua")
    seen: list[str] = []
    parts: list[str] = []

    def include(text: str) -> None:
        for line in _INCLUDE.findall(text):
            for fragment in line.split():
                if fragment not in seen:
                    seen.append(fragment)
                    inner = clock if fragment == "clock" else _read(f"_{fragment}.lua")
                    include(inner)
                    parts.append(inner)

    include(body)
    source = "\n".join([*parts, body])
    text = f"{shebang}\n{lua_names(source)}{source}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
