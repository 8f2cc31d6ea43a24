"""Types of numbers. Their bounds keep out values that would later overflow a socket's timer, a date or Redis's numbers.

Infinity and NaN are refused everywhere (by ``allow_inf_nan`` of the settings' tree). So are ``true`` and
``false``, which pydantic would read as 1 and 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

WEEK_S: Final = 7 * 86_400
CENTURY_S: Final = 100 * 365 * 86_400
"""A date this far away still has a year of four digits, and its time in milliseconds is an exact integer in Lua."""
MAX_COUNT: Final = 1_000_000_000


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


NUMBER: Final = BeforeValidator(_number)
"""Refuses ``true`` and ``false``."""

Timeout = Annotated[float, Field(gt=0, le=3600), NUMBER]
"""Timeout of one call, in seconds. The kernel's timers overflow at 24 days."""
Duration = Annotated[float, Field(gt=0, le=WEEK_S), NUMBER]
"""Seconds that a process waits."""
DurationOrNone = Annotated[float, Field(ge=0, le=WEEK_S), NUMBER]
"""A duration; 0 means none."""
Period = Annotated[float, Field(gt=0, le=CENTURY_S), NUMBER]
"""A number of seconds that Daybreak only compares, or adds to a date. It is never the length of a timer."""
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), NUMBER]
Ranks = Annotated[int, Field(ge=1, le=100_000), NUMBER]
Groups = Annotated[int, Field(ge=0, le=100_000), NUMBER]
Replicas = Annotated[int, Field(ge=0, le=100), NUMBER]
Bytes = Annotated[int, Field(ge=1, le=1 << 40), NUMBER]
Port = Annotated[int, Field(ge=0, le=65_535), NUMBER]
Ratio = Annotated[float, Field(ge=0, le=1), NUMBER]
PerSecond = Annotated[float, Field(gt=0, le=1_000_000), NUMBER]
Share = Annotated[float, Field(ge=1e-6, le=1e6), NUMBER]
"""A weight. GPU-seconds are divided by it, and the sums of the quotients must stay finite."""
Processors = Annotated[float, Field(ge=0, le=100_000), NUMBER]
