"""The Redis function library of the registry. It is separate from the library of the pools, so that either can change
without the other.

Its text is, in this order: the constants that the rest mentions, the clock, the rules of the lease clock (which the
pools' library has too), and ``registry.lua``. The name of its function ends in the hash of the text, so that several
versions can live on one server during a rolling update.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from daybreak_server.adapters.redis.prelude import lua_numbers
from daybreak_server.adapters.redis.scripts import Script, lua_source

NAME = "registry"


@dataclass(frozen=True, slots=True)
class RegistryLibrary:
    """One script, whose first argument names the operation. Tests pass another ``clock_text`` to set the time."""

    clock_text: str | None = None

    def get(self, name: str) -> Script:
        """The script ``registry``. :raises KeyError: for another name."""
        if name != NAME:
            raise KeyError(name)
        return _script(self._clock())

    @property
    def text(self) -> str:
        """The library's text, for ``FUNCTION LOAD``."""
        function = _script(self._clock()).function
        register = (
            f"redis.register_function{{ function_name = '{function}', flags = {{ 'allow-oom' }}, "
            "callback = function(keys, args) return run(keys[1], args) end }"
        )
        return f"#!lua name={function}\n{_source(self._clock())}\n{register}\n"

    def _clock(self) -> str:
        return self.clock_text if self.clock_text is not None else lua_source("_clock")


def lua_text() -> str:
    """The text of ``registry.lua``."""
    folder = files("daybreak_server.adapters.redis.registry")
    return (folder / "registry.lua").read_text(encoding="utf-8")


@cache
def _source(clock: str) -> str:
    text = "\n".join([clock, lua_source("_lease_clock"), lua_text()])
    return "\n".join([lua_numbers(text), "local P", text])


@cache
def _script(clock: str) -> Script:
    source = _source(clock)
    version = hashlib.sha256(source.encode()).hexdigest()[:12]
    text = f"#!lua flags=allow-oom\n{source}\nreturn run(KEYS[1], ARGV)\n"
    return Script(NAME, f"daybreak_registry_{version}", text)
