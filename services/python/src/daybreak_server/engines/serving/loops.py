"""The loops of the kind ``online``: groups that answer requests."""

from __future__ import annotations

from functools import partial

from daybreak_server.engines.ranks.loops import GroupLoops
from daybreak_server.engines.serving.follower import ServingFollower
from daybreak_server.engines.serving.leader import ServingLeader


def serving_loops(host: str) -> GroupLoops:
    """The loops of a group whose leader listens at ``host``, an address of its node that gateways can reach."""
    return GroupLoops(leader=partial(ServingLeader, host=host), follower=ServingFollower)
