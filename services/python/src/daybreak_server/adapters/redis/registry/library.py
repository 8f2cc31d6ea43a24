"""The Redis function library of the registry. It is a library of its own, so that it changes independently."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from daybreak_server.adapters.redis.scripts import Library, Script

NAME = "registry"


class RegistryLibrary(Library):
    """One script, whose first argument names the operation."""

    def get(self, name: str) -> Script:
        """The script. :raises KeyError: if it is not the registry's."""
        if name != NAME:
            raise KeyError(name)
        return _script()

    @property
    def text(self) -> str:
        """The library's text, for ``FUNCTION LOAD``."""
        function = _script().function
        register = (
            f"redis.register_function{{ function_name = '{function}', flags = {{ 'allow-oom' }}, "
            "callback = function(keys, args) return run(keys[1], args) end }"
        )
        return f"#!lua name={function}\n{_source()}\n{register}\n"


@cache
def _source() -> str:
    return (files("daybreak_server.adapters.redis.registry") / "registry.lua").read_text(encoding="utf-8")


@cache
def _script() -> Script:
    version = hashlib.sha256(_source().encode()).hexdigest()[:12]
    text = f"#!lua flags=allow-oom\n{_source()}\nreturn run(KEYS[1], ARGV)\n"
    return Script(NAME, f"daybreak_registry_{version}", text)
