"""How the window of the language model slides: by whole turns. Training and serving use the same rule."""

from __future__ import annotations

from collections.abc import Sequence


def first_visible(lengths: Sequence[int], window: int) -> int:
    """The index of the oldest past turn that the next turn sees. ``lengths``: how many
    positions each past turn has, oldest first.

    At most ``window`` positions of past turns are visible. The result depends on the newest turns alone, so a session
    that continues on another group with its newest turns has the same window.
    """
    left, first = window, len(lengths)
    while first and lengths[first - 1] <= left:
        first -= 1
        left -= lengths[first]
    return first
