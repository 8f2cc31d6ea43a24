"""The loops of a group that runs one task at a time, on all ranks: a pool of kind ``jobs``."""

from __future__ import annotations

from daybreak_server.engines.ranks.loops import GroupLoops
from daybreak_server.engines.tasks.follower import FollowerLoop
from daybreak_server.engines.tasks.leader import LeaderLoop

JOBS = GroupLoops(leader=LeaderLoop, follower=FollowerLoop)
