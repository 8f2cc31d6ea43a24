"""A follower's loop: wait for a request from the leader, run it in lockstep, repeat."""

from __future__ import annotations

from typing import Any, cast

from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.heartbeat import FOREVER_S, Heartbeat
from daybreak_server.engines.ranks.consensus import GroupDecision
from daybreak_server.engines.ranks.control_group import LeaderConnection
from daybreak_server.engines.serving.request_run import ORDER, follow
from daybreak_server.workloads.base import Workload, WorkloadSpec
from daybreak_server.workloads.serving import ServingWorkload


class ServingFollower:
    """Runs the leader's requests until the leader ends the group."""

    def __init__(
        self,
        _spec: WorkloadSpec[Any],
        *,
        config: GroupConfig,
        workload: Workload[Any],
        leader: LeaderConnection,
        heartbeat: Heartbeat,
    ) -> None:
        self._config = config
        self._workload = cast("ServingWorkload", workload)
        self._leader = leader
        self._heartbeat = heartbeat

    def run(self) -> None:
        """Run requests until the leader sends ``leave``.

        :raises GroupBrokenError: if the connection to the leader is lost, or the ranks disagree.
        """
        while True:
            self._heartbeat.beat("idle", limit_s=FOREVER_S)
            order = self._leader.next_order()
            if order.kind == "leave":
                return
            if order.kind != ORDER:
                raise GroupBrokenError(f"the leader sent {order.kind!r} where {ORDER!r} was due")
            # There is no limit here. A slow client makes the whole group wait, and only the leader can tell such a wait
            # from a stall.
            self._heartbeat.beat("request", limit_s=FOREVER_S)
            if follow(order, self._workload, self._leader) is GroupDecision.BREAK:
                raise GroupBrokenError("the ranks do not agree")
