"""Makes one Redis function library of the Lua files, so that the server compiles and builds it once, not at each call.

The library's name and those of its functions end in the hash of its text: versions live side by side, as in a
rolling update. It is the key names and constants (``prelude.py``), the fragments (files that begin with an
underscore) in order of need, and each script: its first line gives its flags, and its ``run(ARGV)`` what it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from daybreak_server.adapters.redis.key_names import Keys, lua_names
from daybreak_server.adapters.redis.prelude import lua_constants

Arg = str | bytes | int | float

FRAGMENTS = ("common", "history", "queue", "attempt", "claim", "estimate", "show")
SCRIPTS = {
    "submit": "API",
    "claim": "leader",
    "renew": "leader",
    "report": "leader",
    "preview": "leader",
    "settle": "leader",
    "cancel": "API",
    "show": "API",
    "list": "API",
    "events": "API",
    "pool": "API, operator",
    "tick": "API, each second",
    "group": "leader, operator",
    "forget": "API",
}
"""Each script by name, and who calls it."""

_BEGIN = """
local function begin(prefix)
  name_keys(prefix)
  call, format = redis.call, string.format
  NOW = now_ms()
  NOW_TEXT = int(NOW)
  for _, reset in ipairs(resets) do reset() end
end
"""
_FUNCTION = """
do
%(body)s
redis.register_function{ function_name = '%(function)s', flags = { %(flags)s },
  callback = function(keys, args)
    begin(keys[1])
    return run(args)
  end }
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, ready to be called: by ``FCALL`` as ``function``, or by ``EVAL`` of ``text`` without the library."""

    name: str
    function: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script: which one, for which pool, with what."""

    script: str
    keys: Keys
    args: Sequence[Arg]


def lua_source(name: str) -> str:
    """The text of a script or (``_name``) a fragment."""
    return _read(f"{name}.lua")


@dataclass(frozen=True, slots=True)
class Library:
    """All scripts. ``clock`` names the fragment that says what time it is, as ``now_ms()``.

    Production has only ``_clock.lua`` (the server's own clock). Tests of deadlines build a library with a
    clock of theirs; the scripts of production do not contain a way to set the time.
    """

    clock: str = "_clock.lua"
    clock_text: str | None = None

    def get(self, name: str) -> Script:
        """The script ``name``."""
        return _library(self._clock())[1][name]

    @property
    def text(self) -> str:
        """What ``FUNCTION LOAD`` takes."""
        return _library(self._clock())[0]

    def _clock(self) -> str:
        return self.clock_text if self.clock_text is not None else _read(self.clock)


@cache
def _read(file: str) -> str:
    return (files("daybreak_server.adapters.redis") / "lua" / file).read_text(encoding="utf-8")


@cache
def _library(clock: str) -> tuple[str, dict[str, Script]]:
    base = "\n".join(
        [
            *(lua_names(), lua_constants(), "local NOW, NOW_TEXT", clock),
            *(_read(f"_{name}.lua") for name in FRAGMENTS),
            _BEGIN,
        ]
    )
    bodies = {name: _read(f"{name}.lua").partition("\n") for name in SCRIPTS}
    version = hashlib.sha256("\n".join([base, *map("".join, bodies.values())]).encode()).hexdigest()[:12]
    scripts, functions = {}, []
    for name, (shebang, _, body) in bodies.items():
        if not shebang.startswith("#!lua"):
            raise ValueError(f"{name}.lua does not begin with #!lua")
        flags = ", ".join(f"'{flag}'" for flag in shebang.partition("flags=")[2].split(",") if flag)
        function = f"daybreak_{name}_{version}"
        functions.append(_FUNCTION % {"body": body, "function": function, "flags": flags})
        text = f"{shebang}\n{base}{body}begin(KEYS[1])\nreturn run(ARGV)\n"
        scripts[name] = Script(name, function, text)
    return f"#!lua name=daybreak_{version}\n{base}{''.join(functions)}", scripts
