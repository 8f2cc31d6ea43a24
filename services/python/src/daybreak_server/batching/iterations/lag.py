"""Measures how far sessions are behind their speakers, and decides what the group changes.

The *lag* of a session is the length of the audio that waits for the model, minus the length of one turn. When the lag
of a group's sessions exceeds a limit, longer turns help, because they cost less for each second of audio. So the
*latency multiplier*, by which the length of a turn is multiplied, doubles until the lag no longer exceeds the limit. If
the lag exceeds the limit even when the multiplier is at its maximum, the group is *full*, and no new session may join.
When the lag has been small for some time, sessions may join again, and then the multiplier is halved, one step at a
time. The multiplier does not oscillate, for two reasons: the lag must stay large or small for some time before
anything changes, and a small lag is far below the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

SETTING_NAMES = ("lag_limit_ms", "latency_multiplier", "max_latency_multiplier")
"""The pool's settings for ``limit_s``, ``lowest`` and ``highest`` of :class:`LagRules`."""


def session_lag_s(
    *, received_s: float, consumed_s: float, turn_s: float, elapsed_s: float = math.inf
) -> float:
    """The lag of a session.

    :param received_s: seconds of audio that have arrived.
    :param consumed_s: seconds of audio of the turns that are complete.
    :param turn_s: seconds of audio of a turn. The model cannot compute less than a turn, so this audio is no lag.
    :param elapsed_s: seconds since the session was opened. Audio beyond this length is no lag, because a client may
        send a file faster than it was spoken.
    """
    return max(0.0, min(received_s, elapsed_s) - consumed_s - turn_s)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value ``v`` such that at least ``share`` of all values are at most ``v``; 0 without values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered), max(1, math.ceil(share * len(ordered)))) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LagRules:
    """When the latency multiplier changes.

    :raises ValueError: if a value is out of range. The message names the value.
    """

    limit_s: float = 2.0
    """The limit of the lag."""
    lowest: int = 1
    """The lowest multiplier."""
    highest: int = 4
    """The highest multiplier."""
    raise_after_s: float = 1.0
    """How long the lag must exceed the limit before the multiplier doubles, and then before it doubles again."""
    lower_after_s: float = 10.0
    """How long the lag must be small before the multiplier falls, and then before it falls again."""
    small: float = 0.25
    """The share of the limit below which a lag is small."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not 1 <= self.lowest <= self.highest:
            raise ValueError(
                f"latency_multiplier is {self.lowest}; it must be from 1 to max_latency_multiplier, {self.highest}."
            )
        if not self.limit_s > 0:
            raise ValueError(f"limit_s is {self.limit_s}; it must be above 0.")
        if not 0 < self.small < 1:
            raise ValueError(f"small is {self.small}; it must be between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LagState:
    """The multiplier of a group, and the time since which its lag has exceeded the limit or has been small. When the
    multiplier changes or sessions may join again, this time is set to the present."""

    multiplier: int = 1
    high_since: float | None = None
    low_since: float | None = None
    full: bool = False
    """The lag exceeded the limit although the multiplier was at its maximum. The group admits no new session until the
    lag has been small for some time."""


def observe(state: LagState, lag_s: float, now: float, rules: LagRules) -> LagState:
    """The state after ``lag_s`` (usually the 95th percentile of the sessions' lag) was measured at the time ``now``."""
    multiplier = min(max(state.multiplier, rules.lowest), rules.highest)
    state = replace(state, multiplier=multiplier)
    if lag_s > rules.limit_s:
        return _high(replace(state, low_since=None), now, rules)
    if lag_s < rules.small * rules.limit_s:
        return _small(replace(state, high_since=None), now, rules)
    return replace(state, high_since=None, low_since=None)


def _high(state: LagState, now: float, rules: LagRules) -> LagState:
    since = now if state.high_since is None else state.high_since
    if now < since + rules.raise_after_s:
        return replace(state, high_since=since)
    if state.multiplier == rules.highest:
        return replace(state, high_since=since, full=True)
    return replace(state, multiplier=min(2 * state.multiplier, rules.highest), high_since=now)


def _small(state: LagState, now: float, rules: LagRules) -> LagState:
    since = now if state.low_since is None else state.low_since
    if now < since + rules.lower_after_s:
        return replace(state, low_since=since)
    if state.full:  # First, admit sessions again. The turns become shorter later, if the lag is still small.
        return replace(state, low_since=now, full=False)
    return replace(state, multiplier=max(state.multiplier // 2, rules.lowest), low_since=now)
