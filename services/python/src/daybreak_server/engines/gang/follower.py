"""A follower's loop: wait for the leader's order, go through the task in lockstep, and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daybreak_server.engines.gang.channel import Message
from daybreak_server.engines.gang.consensus import Report, Verdict
from daybreak_server.engines.gang.control_group import Leader
from daybreak_server.engines.gang.lockstep import ScratchDirs, begin, drive
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.context import FollowerContext
from daybreak_server.engines.rank.errors import GroupBrokenError
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.workloads.base import Step, Task, Workload, WorkloadSpec
from daybreak_server.workloads.inputs import context_of, restored

_FOREVER_S = 10 * 365 * 86400.0


class FollowerLoop:
    """Follows until the leader lets the group go."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        *,
        config: GangConfig,
        workload: Workload[Any],
        leader: Leader,
        heartbeat: Heartbeat,
    ) -> None:
        self._spec = spec
        self._config = config
        self._workload = workload
        self._leader = leader
        self._heartbeat = heartbeat
        self._folders = ScratchDirs(config.scratch)

    def run(self) -> None:
        """Follow. :raises GroupBrokenError: when the leader is gone or the ranks disagree."""
        while True:
            self._heartbeat.beat("idle", limit_s=_FOREVER_S)
            order = self._leader.next_order()
            if order.kind == "leave":
                self._folders.close()
                return
            if order.kind != "run":
                raise GroupBrokenError(f"the leader sent {order.kind!r} where an order was due")
            self._run(order)

    def _run(self, order: Message) -> None:
        # The leader decides what a stall is; a follower waits longer, so that the leader's reason is told.
        self._heartbeat.beat("task", limit_s=self._config.stall_s * 2)
        fields = order.fields
        with self._folders.one() as workdir:
            context = FollowerContext(workdir=workdir, resume=order.payload if fields["resumes"] else None)
            verdict = drive(self._steps(fields, context), self._agree)
        if verdict is Verdict.BREAK:
            raise GroupBrokenError("the ranks do not agree")

    def _steps(self, fields: Mapping[str, Any], context: FollowerContext) -> Iterator[Step]:
        """The run of the task. An input that is refused here although the leader took it is its first step's error."""
        params = restored(self._spec, fields["input"], context_of(self._spec, self._config.options))
        task: Task[Any] = Task(id=fields["task"], params=params, attempt=fields["attempt"])
        yield from begin(self._workload, task, context)

    def _agree(self, mine: Report, _step: Step | None) -> Verdict:
        verdict = self._leader.agree(mine)
        self._heartbeat.beat()
        return verdict
