"""The loop of a group of kind ``sessions``, which serves streaming sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from daybreak_server.engines.ranks.loops import Follower, GroupLoops
from daybreak_server.engines.sessions.leader import NotSessionsError, SessionsLeader
from daybreak_server.ports.sessions import SessionWork


def sessions_loops(open_work: Callable[[], SessionWork]) -> GroupLoops:
    """The loop of a group of kind ``sessions`` (one rank). ``open_work`` opens the group's part of the store."""
    return GroupLoops(leader=partial(SessionsLeader, open_work=open_work), follower=_no_follower)


def _no_follower(*_args: Any, **_kwargs: Any) -> Follower:
    raise NotSessionsError("a group that serves sessions has one rank; set ranks to 1")
