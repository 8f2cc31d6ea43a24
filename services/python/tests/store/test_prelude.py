"""Python defines rules, limits, states, control bits and argument names. The Lua scripts define none of their own."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from daybreak_server.adapters.redis import limits, prelude
from daybreak_server.adapters.redis.arguments import lua_arguments
from daybreak_server.adapters.redis.prelude import lua_constants
from daybreak_server.domain import policy
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.sessions import SessionState
from daybreak_server.domain.tasks import Control, Priority, State
from testkit.valkey import Server

LUA = {
    path.name: path.read_text(encoding="utf-8")
    for folder in ("lua", "registry")
    for path in (files("daybreak_server.adapters.redis") / folder).iterdir()
    if path.name.endswith(".lua")
}
ARITHMETIC = {"0.5", "16", "1000", "1e15", "1e-9", "4294967296"}
"""Numbers that are not rules: a half, base 16, units, the limit for writing a number as an integer, the smallest cost,
and 2^32."""


def code(text: str) -> str:
    """The text of a Lua file without comments and strings."""
    return re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", text))


def numbers(text: str) -> set[str]:
    """The numbers in a Lua file, except single digits, which are indices and small steps."""
    literals = re.findall(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", code(text))
    return {literal for literal in literals if not re.fullmatch(r"\d", literal)}


def constant_names() -> list[str]:
    """The names that the prelude defines: the constants that Python generates for the scripts."""
    return re.findall(r"^local (\w+) = ", lua_constants(), re.MULTILINE)


@pytest.mark.parametrize("file", sorted(LUA))
def test_no_script_spells_out_a_number_of_a_rule(file: str) -> None:
    """Numbers with two or more digits, and fractions, come from the prelude, except :data:`ARITHMETIC`."""
    assert numbers(LUA[file]) <= ARITHMETIC, "define it in domain/policy.py or adapters/redis/limits.py"


@pytest.mark.parametrize("file", sorted(LUA))
def test_no_script_defines_a_constant(file: str) -> None:
    """A constant in a Lua file would copy a constant of the prelude, or hide it."""
    defined = {
        name.strip()
        for names in re.findall(r"local ([\w, ]+?) =", code(LUA[file]))
        for name in names.split(",")
        if name.strip().isupper() and len(name.strip()) > 1
    }
    variables = {"NUMBERS", "ARGV"}
    assert defined - variables == set()


@pytest.mark.parametrize("file", sorted(LUA))
def test_scripts_read_arguments_by_name(file: str) -> None:
    """A script reads no argument by its position. It uses only the layouts that ``arguments.py`` defines."""
    text = code(LUA[file])
    assert not re.search(r"\bARGV\[\d", text)
    layouts = set(re.findall(r"function read\.(\w+)", lua_arguments()))
    assert set(re.findall(r"\b(?:read|width)\.(\w+)", text)) <= layouts


def test_every_constant_is_used() -> None:
    """Lua limits the number of locals, so the prelude defines only constants that scripts use."""
    text = "\n".join(map(code, LUA.values()))
    assert [name for name in constant_names() if not re.search(rf"\b{name}\b", text)] == []


def test_every_constant_has_one_definition() -> None:
    """No name has two definitions, and all rules of the scripts are in ``domain/policy.py``."""
    assert len(constant_names()) == len(set(constant_names()))
    rules = {*prelude.RULES, *prelude.BUCKETS, *prelude.SETS, *prelude.NUMBERS}
    assert rules <= {name for name in vars(policy) if name.isupper()}
    assert not {name for name in vars(policy) if name.isupper()} & set(vars(limits))


def test_states_in_scripts_are_states_of_the_domain() -> None:
    """A script compares and writes states of the domain only, because a misspelled state would never match."""
    known = {*State, *GroupState, *SessionState}
    for file, text in LUA.items():
        compared = re.findall(r"(?:\.state|before\[1\]) *[=~]= *'(\w+)'", text)
        written = re.findall(r"(?:set\(r, 'state', |set_group\([^)]*, |finish\(r, )'(\w+)'\)", text)
        assert set(compared) | set(written) <= known, file


def test_a_server_reads_every_constant_exactly(server: Server) -> None:
    """Lua reads each constant exactly as Python has it, so none is too large for Lua's numbers."""
    numeric = [name for name in constant_names() if name not in {"TERMINAL", "ACCEPTS_TASKS", "TOTALS", "S"}]
    numeric += re.findall(r"^(S\.\w+) = ", lua_constants(), re.MULTILINE)
    formatted = ", ".join(f"string.format('%.17g', {name})" for name in numeric)
    with server.client() as client:
        values = client.eval(f"{lua_constants()}return {{ {formatted} }}", 0)
    bits = {bit.name: bit.value for bit in Control}
    expected = {**vars(limits), **vars(policy), **bits, "PRIORITIES": len(Priority)}
    expected |= {f"S.{name.removeprefix('SESSION_')}": value for name, value in vars(limits).items()}
    assert {name: float(value) for name, value in zip(numeric, values, strict=True)} == {
        name: float(expected[name]) for name in numeric
    }


def test_a_server_reads_lists_and_sets_as_python_has_them(server: Server) -> None:
    """Buckets keep their order, and each set has the same words as in Python."""
    with server.client() as client:
        for name in prelude.BUCKETS:
            assert tuple(client.eval(f"{lua_constants()}return TOTALS.{name}", 0)) == getattr(policy, name)
        for name in prelude.SETS:
            keys = (
                f"local names = {{}} for k in pairs(TOTALS.{name}) do names[#names + 1] = k end return names"
            )
            found = client.eval(f"{lua_constants()}{keys}", 0)
            assert {word.decode() for word in found} == set(getattr(policy, name))
