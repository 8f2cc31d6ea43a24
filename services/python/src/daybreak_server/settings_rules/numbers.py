"""Numbers of settings, with the bounds behind which something later would overflow: a socket's timer, a date, Redis.

``.inf`` and ``.nan`` are refused for every number (``allow_inf_nan`` of the tree), and so are ``true`` and ``false``,
which pydantic takes for 1 and 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

WEEK_S: Final = 7 * 86_400
CENTURY_S: Final = 100 * 365 * 86_400
"""A date this far away still has four digits, and its milliseconds are whole numbers in Lua."""
MOST: Final = 1_000_000_000


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


_Number = BeforeValidator(_number)

Timeout = Annotated[float, _Number, Field(gt=0, le=3600)]
"""Seconds that one call may take. The kernel's timers end at 24 days."""
Duration = Annotated[float, _Number, Field(gt=0, le=WEEK_S)]
"""Seconds that a process waits for."""
DurationOrNone = Annotated[float, _Number, Field(ge=0, le=WEEK_S)]
"""The same; 0 is none."""
Period = Annotated[float, _Number, Field(gt=0, le=CENTURY_S)]
"""Seconds that are only compared and added to dates."""
Count = Annotated[int, _Number, Field(ge=1, le=MOST)]
CountOrNone = Annotated[int, _Number, Field(ge=0, le=MOST)]
Ranks = Annotated[int, _Number, Field(ge=1, le=100_000)]
Groups = Annotated[int, _Number, Field(ge=0, le=100_000)]
Replicas = Annotated[int, _Number, Field(ge=0, le=100)]
Bytes = Annotated[int, _Number, Field(ge=1, le=1 << 40)]
Port = Annotated[int, _Number, Field(ge=0, le=65_535)]
Share = Annotated[float, _Number, Field(ge=1e-6, le=1e6)]
"""A weight: GPU-seconds are divided by it, and the sums must stay numbers."""
Processors = Annotated[float, _Number, Field(ge=0, le=100_000)]
