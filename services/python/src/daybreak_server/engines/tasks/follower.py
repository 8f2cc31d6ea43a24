"""A follower's loop: wait for an order from the leader, run the task in lockstep, repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daybreak_server.domain import private_inputs
from daybreak_server.domain.log_context import bound
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.context import FollowerContext
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.heartbeat import FOREVER_S, Heartbeat
from daybreak_server.engines.common.outputs import checked_step
from daybreak_server.engines.common.scratch_dirs import ScratchDirs
from daybreak_server.engines.ranks.channel import Message
from daybreak_server.engines.ranks.consensus import GroupDecision, RankReport
from daybreak_server.engines.ranks.control_group import LeaderConnection
from daybreak_server.engines.ranks.lockstep import begin, drive
from daybreak_server.workloads.base import Step, Task, Workload, WorkloadSpec
from daybreak_server.workloads.inputs import context_of, restored

_LOGGED = ("task", "attempt", "group", "trace_id")
"""The fields that each log line about a task has. The order to run the task contains them."""


class FollowerLoop:
    """Carries out the leader's orders until the leader ends the group."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        *,
        config: GroupConfig,
        workload: Workload[Any],
        leader: LeaderConnection,
        heartbeat: Heartbeat,
    ) -> None:
        self._spec = spec
        self._config = config
        self._workload = workload
        self._leader = leader
        self._heartbeat = heartbeat
        self._scratch_dirs = ScratchDirs(config.scratch)

    def run(self) -> None:
        """Carry out orders until the leader sends ``leave``.

        :raises GroupBrokenError: if the connection to the leader is lost, or the ranks disagree.
        """
        while True:
            self._heartbeat.beat("idle", limit_s=FOREVER_S)
            order = self._leader.next_order()
            if order.kind == "leave":
                self._scratch_dirs.close()
                return
            if order.kind != "run":
                raise GroupBrokenError(f"the leader sent {order.kind!r} where an order was due")
            self._run_task(order)

    def _run_task(self, order: Message) -> None:
        # The leader detects stalls. A follower waits longer, so that the leader is the one that reports the reason.
        self._heartbeat.beat("task", limit_s=self._config.stall_s * 2)
        fields = order.fields
        with (
            private_inputs.running(fields["input"], fields["task"]),
            bound(**{name: fields[name] for name in _LOGGED}),
            self._scratch_dirs.scratch_dir() as workdir,
        ):
            context = FollowerContext(workdir=workdir, resume=order.payload if fields["resumes"] else None)
            decision = drive(self._steps(fields, context), self._agree, check=checked_step)
        if decision is GroupDecision.BREAK:
            raise GroupBrokenError("the ranks do not agree")

    def _steps(self, fields: Mapping[str, Any], context: FollowerContext) -> Iterator[Step]:
        """Run the task step by step. If this rank refuses the input, the report of its first step has the error."""
        params = restored(self._spec, fields["input"], context_of(self._spec, self._config.options))
        task: Task[Any] = Task(id=fields["task"], params=params, attempt=fields["attempt"])
        yield from begin(self._workload, task, context)

    def _agree(self, own_report: RankReport, _step: Step | None) -> GroupDecision:
        decision = self._leader.agree(own_report)
        self._heartbeat.beat()
        return decision
