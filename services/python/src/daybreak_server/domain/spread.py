"""Spreads the replicas of a model over workers, after :func:`~daybreak_server.domain.placement.place` had to put two of
them on one worker.

While a worker is away, its replicas run elsewhere, often beside another replica of the same model. When a worker has
room, this module moves one of the two there, without reducing the capacity for requests::

    worker a: chat chat          worker a: chat chat          worker a: chat
    worker b:             ──▶    worker b: chat (starts) ──▶  worker b: chat
       for SPREAD_AFTER_MS          until it is ready

A move needs free memory on the other worker. While the move lasts, the model has one replica more than wanted. The move
ends without effect if the new replica fails, if its worker leaves, if its memory is needed for a wanted replica, or if
the move is no longer useful. Each model has at most one move at a time, and each move makes the spread better, so
replicas do not move back and forth. A move must have been possible for ``SPREAD_AFTER_MS`` without interruption before
it begins. So no replica moves to a worker that comes and goes. Where KEDA scales the workers, no replica moves to a
worker that is not needed, because KEDA removes such a worker before ``SPREAD_AFTER_MS`` have passed. Each failure of
a move doubles the time before its next try, up to a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from daybreak_server.domain.models import ReplicaReport, ReplicaState, WorkerRecord, placeable
from daybreak_server.domain.placement import Placement, Replica, WantedModel, fits, free_place

SPREAD_AFTER_MS = 120_000
"""Longer than the default of the chart's ``workers.scaling.cooldownPeriod`` (60 s), after which KEDA removes a worker
without replicas."""
_MAX_DOUBLINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadMove:
    """A move of one replica of a model, which is possible or has begun."""

    since_ms: int
    """When the move became possible, or when its last try failed, on the clock of the store."""
    failures: int = 0
    """How often the new replica failed."""
    replica: Replica | None = None
    """The replica that starts; ``None`` if the move has not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The moves of all models, between two calls of ``place``."""

    moves: Mapping[str, SpreadMove] = field(default_factory=dict)
    """By the alias of the model."""

    def without_extra(self, placement: Placement) -> Placement:
        """The placement without the replicas that are started for moves."""
        extra = {move.replica for move in self.moves.values()}
        return replace(
            placement, replicas=tuple(replica for replica in placement.replicas if replica not in extra)
        )

    def settle(
        self, wanted: Mapping[str, int], placed: Sequence[Replica], workers: Sequence[WorkerRecord]
    ) -> tuple[list[Replica], Spread]:
        """End the moves whose new replica is ready, or takes the place of another replica that was lost.

        :param placed: The placement without the replicas of moves.
        :returns: the present replicas, which ``place`` gets, and the moves that continue.
        """
        here = {worker.id for worker in workers if not worker.draining}
        current, continuing = list(placed), dict(self.moves)
        for alias, move in self.moves.items():
            if move.replica is None:
                continue
            mine = [replica for replica in current if replica.alias == alias and replica.worker in here]
            if len(mine) < wanted.get(alias, 0):
                current.append(move.replica)
                del continuing[alias]
                continue
            surplus = _surplus(mine, move.replica, wanted.get(alias, 0), workers)
            if surplus is not None:
                current.remove(surplus)
                current.append(move.replica)
                del continuing[alias]
        return current, Spread(moves=continuing)

    def advance(
        self,
        models: Sequence[WantedModel],
        placement: Placement,
        workers: Sequence[WorkerRecord],
        *,
        now_ms: int,
    ) -> tuple[Placement, Spread]:
        """Continue the moves that are still possible, begin those that are due, and note those that became possible.

        :param placement: What ``place`` returned. Moves get only memory that its replicas leave free.
        :returns: the placement with the new replicas of moves, and the moves.
        """
        machines = [placeable(worker) for worker in workers]
        replicas = list(placement.replicas)
        moves: dict[str, SpreadMove] = {}
        for model in sorted(models, key=lambda model: model.alias):
            if not _is_uneven(replicas, model.alias):
                continue
            move = self.moves.get(model.alias)
            new = move.replica if move is not None else None
            if move is not None and new is not None:
                if _has_failed(new, workers):
                    move = SpreadMove(since_ms=now_ms, failures=move.failures + 1)
                elif _has_none(replicas, new) and fits(models, machines, replicas, new):
                    replicas.append(new)
                    moves[model.alias] = move
                    continue
                else:
                    move = None
            target = free_place(models, machines, replicas, model)
            if target is None:
                continue
            move = move or SpreadMove(since_ms=now_ms)
            if now_ms - move.since_ms >= SPREAD_AFTER_MS << min(move.failures, _MAX_DOUBLINGS):
                move = replace(move, replica=target)
                replicas.append(target)
            moves[model.alias] = move
        return replace(placement, replicas=tuple(sorted(replicas))), Spread(moves=moves)


def _surplus(
    mine: list[Replica], new: Replica, wanted: int, workers: Iterable[WorkerRecord]
) -> Replica | None:
    """The replica that ``new`` replaces.

    ``None`` if ``new`` is not ready, if no worker has two replicas, or if too few ready replicas would be left.
    """
    reports = [
        (worker.id, report) for worker in workers for report in worker.replicas if report.alias == new.alias
    ]
    if not _is_ready(new, reports):
        return None
    beside = Counter(replica.worker for replica in mine)
    crowded = [replica for replica in mine if beside[replica.worker] > 1]
    if not crowded:
        return None

    def cost(replica: Replica) -> tuple[int, bool, int, Replica]:
        return (
            -beside[replica.worker],
            _is_ready(replica, reports),
            _requests(replica, reports),
            replica,
        )

    found = min(crowded, key=cost)
    ready = sum(report.state is ReplicaState.READY for _, report in reports)
    return None if _is_ready(found, reports) and ready - 1 < wanted else found


def _of(replica: Replica, reports: Iterable[tuple[str, ReplicaReport]]) -> list[ReplicaReport]:
    return [
        report
        for worker, report in reports
        if (worker, report.alias, report.devices) == (replica.worker, replica.alias, replica.devices)
    ]


def _is_ready(replica: Replica, reports: Iterable[tuple[str, ReplicaReport]]) -> bool:
    """Whether a replica is ready. If its model has several replicas on the same devices, all of them must be ready."""
    states = {report.state for report in _of(replica, reports)} - {ReplicaState.DRAINING}
    return states == {ReplicaState.READY}


def _requests(replica: Replica, reports: Iterable[tuple[str, ReplicaReport]]) -> int:
    return min((report.requests for report in _of(replica, reports)), default=0)


def _is_uneven(replicas: Iterable[Replica], alias: str) -> bool:
    return any(
        count > 1 for count in Counter(found.worker for found in replicas if found.alias == alias).values()
    )


def _has_none(replicas: Iterable[Replica], new: Replica) -> bool:
    return all((found.alias, found.worker) != (new.alias, new.worker) for found in replicas)


def _has_failed(replica: Replica, workers: Iterable[WorkerRecord]) -> bool:
    reports = [(worker.id, report) for worker in workers for report in worker.replicas]
    return any(report.state is ReplicaState.FAILED for report in _of(replica, reports))
