"""Generates the Lua constants that the scripts share with Python: rules, limits, states, reasons, control bits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from daybreak_server.adapters.redis import limits
from daybreak_server.domain import policy
from daybreak_server.domain.pool_totals import DELETED, OTHER, WASTES
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import Control, Priority, State

RULES = (
    "PRIORITY_BAND",
    "RUN_HISTORY_WEIGHT",
    "FIRST_SPEC_VERSION",
    "MAX_STRIKES",
    "RELEASES_MAX",
    "GROUP_FAILURES_MAX",
    "BACKOFF_BASE_MS",
    "BACKOFF_MAX_MS",
    "LEASE_STEP_MS",
    "GRACE_MS",
    "GONE_MS",
    "ZOMBIE_MS",
    "CLEANUP_RETRY_MS",
    "DAY_MS",
    "LEDGER_S",
)
"""The constants of ``domain/policy.py`` that the scripts use."""
BUCKETS = ("WAIT_BUCKETS_MS", "RUN_BUCKETS_MS", "CANCEL_BUCKETS_MS", "CANCEL_STEP_BUCKETS")
"""Constants that are tuples of numbers, for metrics. They become arrays."""
SETS = ("RETRY_REASONS", "RELEASE_REASONS")
"""Constants that are tuples of words, for metrics. They become sets."""
NUMBERS = ("TENANTS_MAX", "METER_MS")
"""Constants that are numbers, for metrics."""
SESSIONS = "SESSION_"
"""The limits of streaming sessions have this prefix. Only the scripts of sessions need them."""
TEXTS = {
    "OTHER": OTHER,
    "DELETED": DELETED,
    "NOTE": "Totals for metrics. This text is long so that Redis keeps the hash as a table: fast to add to.",
}
"""Texts. ``NOTE`` is longer than 64 bytes, so that Redis does not keep the hash of the totals as a (slower) list."""


def lua_constants() -> str:
    """The Lua definitions of all numbers (:func:`lua_numbers`) and of the tables (:func:`lua_tables`)."""
    return lua_numbers() + lua_tables()


def lua_numbers(script: str | None = None, *, beyond: str = "") -> str:
    """Lua definitions: a local for each number and each control bit.

    :param script: The text of a script. Only what this text mentions is defined. ``None``: everything is defined.
    :param beyond: Another text. What this other text mentions is not defined.

    Lua reads locals without a lookup, but allows at most 200 visible locals at any place of a chunk. So a number that
    only one script needs is defined inside that script.
    """
    numbers: dict[str, int | float] = {name: getattr(policy, name) for name in RULES}
    numbers |= {name: value for name, value in _limits().items() if not name.startswith(SESSIONS)}
    numbers |= {bit.name: bit.value for bit in Control if bit.name is not None}
    numbers["PRIORITIES"] = len(Priority)
    needed = numbers if script is None else set(re.findall(r"\w+", script)) - set(re.findall(r"\w+", beyond))
    return "".join(f"local {name} = {value!r}\n" for name, value in numbers.items() if name in needed)


def lua_tables() -> str:
    """Lua definitions: ``TERMINAL``, the set of terminal states; ``ACCEPTS_TASKS``, the states in which a group takes
    tasks; ``TOTALS``, everything that the totals for metrics need; and the limits of sessions, as fields of ``S``."""
    of_sessions = "".join(
        f"S.{name.removeprefix(SESSIONS)} = {value!r}\n"
        for name, value in _limits().items()
        if name.startswith(SESSIONS)
    )
    terminal = ", ".join(f"{state} = true" for state in State if state.terminal)
    accepts = ", ".join(f"{state} = true" for state in GroupState if state.accepts_tasks)
    totals = ", ".join(_of_totals())
    tables = f"local TERMINAL = {{ {terminal} }}\nlocal ACCEPTS_TASKS = {{ {accepts} }}\n"
    return f"{tables}local TOTALS = {{ {totals} }}\nlocal S = {{ key = {{}} }}\n{of_sessions}"


def _limits() -> dict[str, int | float]:
    return {name: value for name, value in vars(limits).items() if name.isupper()}


def _of_totals() -> Iterator[str]:
    for name in NUMBERS:
        yield f"{name} = {getattr(policy, name)}"
    for name, text in TEXTS.items():
        yield f"{name} = {text!r}"
    for name in BUCKETS:
        yield f"{name} = {{ {', '.join(map(str, getattr(policy, name)))} }}"
    yield f"WASTES = {{ {', '.join(f'{state} = {cause!r}' for cause, state in WASTES.items())} }}"
    for name in SETS:
        yield f"{name} = {{ {', '.join(f'{word} = true' for word in getattr(policy, name))} }}"
