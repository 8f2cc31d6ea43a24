"""Builds one Redis function library from the Lua files of the pools. Redis compiles the library once, on load.

The text of the library is, in this order:

1. generated constants (``prelude.py``), key names (``key_names.py``) and readers of arguments (``arguments.py``);
2. the clock and the fragments (the files whose names begin with an underscore), in the order of their dependencies;
3. ``begin``, which resets the state of the fragments when a call begins;
4. each script, in a separate block, with the constants that only this script needs. The first line of a script's file
   has the flags of the script. The function ``run(ARGV)`` in this file does the work.

The names of the library and its functions end in the hash of the text, so that several versions can live on one server
during a rolling update. If the library cannot be loaded, because the permission or the memory for it is missing, each
call sends the text of its script with ``EVAL``.

Separate scripts, run by ``EVALSHA``, would be slower: each call would define the hundred or so Lua functions again. For
``settle`` this alone takes 45 µs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

from daybreak_server.adapters.redis.arguments import lua_arguments
from daybreak_server.adapters.redis.changes import MARK
from daybreak_server.adapters.redis.key_names import lua_names
from daybreak_server.adapters.redis.prelude import lua_numbers, lua_tables

Arg = str | bytes | int | float

FRAGMENTS = (
    "lease_clock",
    "unit_of_work",
    "totals",
    "history",
    "queue",
    "attempt",
    "claim",
    "estimate",
    "show",
    "demand",
    "sessions",
)
SCRIPTS = {
    "submit": "API",
    "claim": "leader",
    "renew": "leader, watchdog",
    "report": "leader",
    "preview": "leader",
    "settle": "leader, watchdog",
    "cancel": "API",
    "show": "API",
    "list": "API",
    "events": "API",
    "pool": "API, operator, `daybreakd`",
    "measure": "API, when the metrics of a gateway are read",
    "tick": "API, each second",
    "group": "leader, rank, watchdog, operator, `daybreakd up`",
    "publish_demand": "API, each second while a pool has demand, and at once if the number of groups needed changes",
    "delete": "API",
    "session_open": "API",
    "session_append": "API, for each piece of audio",
    "session_close": "API",
    "session_list": "API",
    "session_watch": "API, while it waits for the model of a session",
    "session_claim": "leader of a sessions pool",
    "session_renew": "leader of a sessions pool, each second",
    "session_commit": "leader of a sessions pool, after an iteration",
    "session_release": "leader of a sessions pool",
}
"""The scripts by name, with their callers."""

_BEGIN = f"""
local function begin(prefix)
  name_keys(prefix)
  call, format = redis.call, string.format
  NOW = now_ms()
  NOW_TEXT = int(NOW)
  for _, reset in ipairs(resets) do reset() end
end

local function reply_of(reply)
  if #changes == 0 then return reply end
  return {{ '{MARK}', reply, changes }}
end
"""
_FUNCTION = """
do
%(body)s
redis.register_function{ function_name = '%(function)s', flags = { %(flags)s },
  callback = function(keys, args)
    begin(keys[1])
    return reply_of(run(args))
  end }
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script. ``FCALL`` runs it as ``function``; without the library, ``EVAL`` runs its ``text``."""

    name: str
    function: str
    text: str


class KeyPrefix(Protocol):
    """The keys that a call may touch. All of them begin with ``base``."""

    @property
    def base(self) -> str:
        """The common prefix, with the hash tag. Scripts receive it as ``KEYS[1]``."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script: its name, the keys of a pool or of the registry, and the arguments."""

    script: str
    keys: KeyPrefix
    args: Sequence[Arg]


class FunctionLibrary(Protocol):
    """What a client needs to call functions, to load them if the server lacks them, and to run one by ``EVAL``."""

    def get(self, name: str) -> Script:
        """The script ``name``. :raises KeyError: when there is no such script."""

    @property
    def text(self) -> str:
        """The library's text, for ``FUNCTION LOAD``."""


def lua_source(name: str) -> str:
    """The text of a script, or of a fragment (``_name``)."""
    return _read(f"{name}.lua")


@dataclass(frozen=True, slots=True)
class Library:
    """All scripts of a pool. ``clock`` names the fragment that defines ``now_ms()``.

    Production uses ``_clock.lua``, the server's clock. Tests of deadlines pass the text of another clock; production
    scripts contain no way to set the time.
    """

    clock: str = "_clock.lua"
    clock_text: str | None = None

    def get(self, name: str) -> Script:
        """The script ``name``. :raises KeyError: when there is no such script."""
        return _library(self._clock())[1][name]

    @property
    def text(self) -> str:
        """The library's text, for ``FUNCTION LOAD``."""
        return _library(self._clock())[0]

    def _clock(self) -> str:
        return self.clock_text if self.clock_text is not None else _read(self.clock)


@cache
def _read(file: str) -> str:
    return (files("daybreak_server.adapters.redis") / "lua" / file).read_text(encoding="utf-8")


@cache
def _library(clock: str) -> tuple[str, dict[str, Script]]:
    shared = "\n".join([clock, *(_read(f"_{name}.lua") for name in FRAGMENTS), _BEGIN])
    constants = lua_numbers(shared) + lua_tables()
    base = "\n".join([constants, lua_names(), lua_arguments(), "local NOW, NOW_TEXT", shared])
    bodies = {name: _read(f"{name}.lua").partition("\n") for name in SCRIPTS}
    version = hashlib.sha256("\n".join([base, *map("".join, bodies.values())]).encode()).hexdigest()[:12]
    scripts, functions = {}, []
    for name, (shebang, _, body) in bodies.items():
        if not shebang.startswith("#!lua"):
            raise ValueError(f"{name}.lua does not begin with #!lua")
        flags = ", ".join(f"'{flag}'" for flag in shebang.partition("flags=")[2].split(",") if flag)
        function = f"daybreak_{name}_{version}"
        own = lua_numbers(body, beyond=shared) + body
        functions.append(_FUNCTION % {"body": own, "function": function, "flags": flags})
        text = f"{shebang}\n{base}{own}begin(KEYS[1])\nreturn reply_of(run(ARGV))\n"
        scripts[name] = Script(name, function, text)
    return f"#!lua name=daybreak_{version}\n{base}{''.join(functions)}", scripts
