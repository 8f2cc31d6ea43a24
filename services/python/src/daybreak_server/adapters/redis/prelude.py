"""Generates the Lua constants that the scripts share with Python: rules, limits, terminal states, control bits."""

from __future__ import annotations

from daybreak_server.adapters.redis import limits
from daybreak_server.domain import policy
from daybreak_server.domain.tasks import Control, State

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


def lua_constants() -> str:
    """Lua definitions: a local for each number and control bit, and ``TERMINAL``, the set of terminal states.

    Lua reads locals without a lookup, but a chunk may have only 200. So only constants that scripts need are here.
    """
    numbers: dict[str, int | float] = {name: getattr(policy, name) for name in RULES}
    numbers |= {name: value for name, value in vars(limits).items() if name.isupper()}
    numbers |= {bit.name: bit.value for bit in Control if bit.name is not None}
    terminal = ", ".join(f"{state} = true" for state in State if state.terminal)
    lines = [f"local {name} = {value!r}" for name, value in numbers.items()]
    return "\n".join([*lines, f"local TERMINAL = {{ {terminal} }}"]) + "\n"
