"""Rules, limits, states and control bits are defined in Python; the scripts get them and define none of their own."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from daybreak_server.adapters.redis import limits, prelude
from daybreak_server.adapters.redis.prelude import lua_constants
from daybreak_server.domain import policy
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import Control, State
from testkit.valkey import Server

LUA = {
    path.name: path.read_text(encoding="utf-8")
    for path in (files("daybreak_server.adapters.redis") / "lua").iterdir()
    if path.name.endswith(".lua")
}
ARITHMETIC = {"0.5", "16", "1000", "1e15", "1e-9", "4294967296"}
"""Numbers that are no rules: a half, base 16, units, the range of exact integers, a smallest cost, 32 bits' range."""
LAYOUT = {"ARGS", "CLAIMANT", "TERMS"}
"""Constants that a file may define: how many arguments a script takes for each item that it handles."""


def code(text: str) -> str:
    """A file without comments and strings."""
    return re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", text))


def numbers(text: str) -> set[str]:
    """The numbers in a file, but for indices and small steps, and for the layout of its arguments."""
    text = re.sub(rf"local (?:{'|'.join(LAYOUT)}) = \d+", "", code(text))
    return {one for one in re.findall(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", text) if not re.fullmatch(r"\d", one)}


def names() -> list[str]:
    """What the prelude defines."""
    return re.findall(r"^local (\w+) = ", lua_constants(), re.MULTILINE)


@pytest.mark.parametrize("file", sorted(LUA))
def test_no_script_spells_out_a_number_of_a_rule(file: str) -> None:
    """Numbers of two digits or more, and fractions, come from the prelude."""
    assert numbers(LUA[file]) <= ARITHMETIC, "define it in domain/policy.py or adapters/redis/limits.py"


@pytest.mark.parametrize("file", sorted(LUA))
def test_no_script_defines_a_constant(file: str) -> None:
    """A constant that a file defines would be a copy, or hide one of the prelude's."""
    defined = {
        name.strip()
        for names in re.findall(r"local ([\w, ]+?) =", code(LUA[file]))
        for name in names.split(",")
        if name.strip().isupper() and len(name.strip()) > 1
    }
    variables = {"NUMBERS", "ARGV"}
    assert defined - LAYOUT - variables == set()


def test_every_constant_is_used() -> None:
    """Locals are few in Lua: the prelude defines what a script uses, and nothing else."""
    text = "\n".join(map(code, LUA.values()))
    assert [name for name in names() if not re.search(rf"\b{name}\b", text)] == []


def test_constants_come_from_one_definition_each() -> None:
    """No name is defined twice, and all rules that the scripts use are in ``domain/policy.py``."""
    assert len(names()) == len(set(names()))
    assert set(prelude.RULES) <= {name for name in vars(policy) if name.isupper()}
    assert not {name for name in vars(policy) if name.isupper()} & set(vars(limits))


def test_states_in_scripts_are_states_of_the_domain() -> None:
    """A state that a script compares with or writes is one of the domain's; a misspelled one would never match."""
    known = {*State, *GroupState}
    for file, text in LUA.items():
        compared = re.findall(r"(?:\.state|before\[1\]) *[=~]= *'(\w+)'", text)
        written = re.findall(r"(?:set\(r, 'state', |set_group\([^)]*, |finish\(r, )'(\w+)'\)", text)
        assert set(compared) | set(written) <= known, file


def test_a_server_computes_with_the_same_numbers(server: Server) -> None:
    """Lua reads the constants as Python has them: none is too large for its numbers."""
    numeric = [name for name in names() if name != "TERMINAL"]
    answer = ", ".join(f"string.format('%.17g', {name})" for name in numeric)
    with server.client() as client:
        found = client.eval(f"{lua_constants()}return {{ {answer} }}", 0)
    bits = {bit.name: bit.value for bit in Control}
    expected = {**vars(limits), **vars(policy), **bits}
    assert {name: float(value) for name, value in zip(numeric, found, strict=True)} == {
        name: float(expected[name]) for name in numeric
    }
