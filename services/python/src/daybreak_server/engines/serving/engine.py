"""The engine of the kind ``online``: groups that answer requests."""

from __future__ import annotations

from functools import partial

from daybreak_server.engines.gang.engine import Engine
from daybreak_server.engines.serving.follower import ServingFollower
from daybreak_server.engines.serving.leader import ServingLeader


def serving_engine(host: str) -> Engine:
    """The loops of a group whose leader listens at ``host``, an address of its node that gateways can reach."""
    return Engine(leader=partial(ServingLeader, host=host), follower=ServingFollower)
