"""Decides which worker runs which model.

:func:`place` is pure and deterministic: the same models, workers and replicas give the same placement, in whatever
order they are listed. Moving a replica means loading its model again. So :func:`place` keeps every present replica,
except surplus ones and those that may no longer run where they are. It first gives each model one replica, then each
model a second one, and so on. In each round the largest models come first. Of the workers on which a replica fits,
the one with the fewest replicas of its model gets it. There the replica gets the devices that it fills best (best fit),
so that large gaps stay whole. If a replica fits nowhere, :func:`place` moves one replica of another model, provided
that this makes room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

HOST = -1
"""A worker without GPUs has one device with this index. It stands for the memory of the worker's machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A machine that can run models."""

    id: str
    engines: frozenset[str]
    """Names of the engines that the worker can start."""
    devices: Mapping[int, int]
    """The memory in bytes that models may use, by index of the GPU. ``{HOST: bytes}`` for a worker without GPUs."""
    draining: bool = False
    """If true, the worker gets no replicas, and the replicas that it has are placed elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedModel:
    """A model, and how many replicas of it are to run."""

    alias: str
    engine: str
    replicas: int
    memory_bytes: int | None = None
    """Memory of one replica, on all its devices together. If unknown, no other replica may use its devices."""
    devices: int = 1
    """Number of GPUs of one replica. Its memory is divided equally among them. Workers without GPUs ignore this."""
    gpu_share: float = 0.0
    """The engine takes at least this share (0 to 1) of each GPU of a replica, however small the model is."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Replica:
    """One engine process that runs a model."""

    alias: str
    worker: str
    devices: tuple[int, ...]
    """Indices of its GPUs in order, or ``(HOST,)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which replicas are to run."""

    replicas: tuple[Replica, ...]
    """Sorted."""
    unplaced: Mapping[str, str] = field(default_factory=dict)
    """Why a model has fewer replicas than wanted, by alias."""


def place(
    models: Iterable[WantedModel], workers: Iterable[Worker], current: Iterable[Replica] = ()
) -> Placement:
    """The placement of these models on these workers, with as few changes of ``current`` as possible."""
    by_alias = {model.alias: model for model in sorted(models, key=lambda model: model.alias)}
    plan = _Plan(by_alias, sorted(workers, key=lambda worker: worker.id))
    for replica in sorted(current):
        if plan.allows(replica):
            plan.add(replica)
    for model in by_alias.values():
        plan.drop_surplus(model)
    unplaced: list[WantedModel] = []
    for model in _in_turn(by_alias.values(), plan.counts()):
        if model in unplaced:
            continue
        found = plan.best_place(model)
        if found is not None:
            plan.add(found)
        elif not plan.place_by_move(model):
            unplaced.append(model)
    reasons = {model.alias: plan.why_not(model) for model in unplaced}
    return Placement(replicas=tuple(sorted(plan.replicas)), unplaced=reasons)


def free_place(
    models: Iterable[WantedModel], workers: Iterable[Worker], placed: Iterable[Replica], model: WantedModel
) -> Replica | None:
    """Where a replica of ``model`` fits beside the placed ones, on a worker that has no replica of this model yet.
    ``None`` if there is no such place."""
    plan = _of_placed(models, workers, placed)
    taken = {replica.worker for replica in plan.replicas if replica.alias == model.alias}
    return plan.best_place(model, without=taken)


def fits(
    models: Iterable[WantedModel], workers: Iterable[Worker], placed: Iterable[Replica], new: Replica
) -> bool:
    """Whether the replica ``new`` may run where it is, beside the placed ones."""
    return _of_placed(models, workers, placed).allows(new)


def _of_placed(models: Iterable[WantedModel], workers: Iterable[Worker], placed: Iterable[Replica]) -> _Plan:
    plan = _Plan({model.alias: model for model in models}, sorted(workers, key=lambda worker: worker.id))
    for replica in sorted(placed):
        plan.add(replica)
    return plan


def _in_turn(models: Iterable[WantedModel], placed: Counter[str]) -> Iterator[WantedModel]:
    """Each model, once for each replica that it lacks: all first replicas, then all second replicas, and so on. In each
    of these rounds, large models come first."""
    missing = [
        (number, -(model.memory_bytes if model.memory_bytes is not None else 1 << 62), model.alias, model)
        for model in models
        for number in range(placed[model.alias], model.replicas)
    ]
    return (model for *_, model in sorted(missing, key=lambda entry: entry[:3]))


class _Plan:
    """Replicas, and the memory that they leave free."""

    def __init__(self, models: Mapping[str, WantedModel], workers: list[Worker]) -> None:
        self._models = models
        self._workers = {worker.id: worker for worker in workers}
        self._free = {
            (worker.id, index): size for worker in workers for index, size in worker.devices.items()
        }
        self._users: Counter[tuple[str, int]] = Counter()
        self.replicas: list[Replica] = []

    def counts(self) -> Counter[str]:
        """How many replicas each model has."""
        return Counter(replica.alias for replica in self.replicas)

    def allows(self, replica: Replica) -> bool:
        """Whether a replica may run where it is."""
        model, worker = self._models.get(replica.alias), self._workers.get(replica.worker)
        return (
            model is not None
            and worker is not None
            and self._suits(model, worker)
            and len(replica.devices) == _device_count(model, worker)
            and len(set(replica.devices)) == len(replica.devices)
            and all(self._fits(model, worker, index) for index in replica.devices)
        )

    def add(self, replica: Replica) -> None:
        """Add a replica that the plan allows."""
        self._change(replica, 1)
        self.replicas.append(replica)

    def remove(self, replica: Replica) -> None:
        """Remove a replica."""
        self.replicas.remove(replica)
        self._change(replica, -1)

    def drop_surplus(self, model: WantedModel) -> None:
        """Remove a model's surplus replicas, first from the workers that have the most of its replicas."""
        while True:
            mine = [replica for replica in self.replicas if replica.alias == model.alias]
            if len(mine) <= model.replicas:
                return
            beside = Counter(replica.worker for replica in mine)
            self.remove(max(mine, key=lambda replica: (beside[replica.worker], replica)))

    def best_place(self, model: WantedModel, *, without: Collection[str] = ()) -> Replica | None:
        """Where the next replica of a model goes, excluding the workers ``without``; ``None`` if it fits nowhere."""
        mine = Counter(replica.worker for replica in self.replicas if replica.alias == model.alias)
        choices = []
        for worker in self._workers.values():
            devices = None if worker.id in without else self._devices(model, worker)
            if devices is not None:
                left = sum(self._free[worker.id, index] for index in devices)
                choices.append((mine[worker.id], left, worker.id, devices))
        if not choices:
            return None
        _, _, worker_id, devices = min(choices)
        return Replica(alias=model.alias, worker=worker_id, devices=devices)

    def place_by_move(self, model: WantedModel) -> bool:
        """Make room for a replica of ``model`` by moving one replica of another model: the smallest whose move makes
        enough room. Returns whether the replica of ``model`` was placed."""
        others = [replica for replica in self.replicas if replica.alias != model.alias]
        for other in sorted(others, key=lambda replica: (self._size(self._models[replica.alias]), replica)):
            self.remove(other)
            mine = self.best_place(model)
            if mine is not None:
                self.add(mine)
                theirs = self.best_place(self._models[other.alias])
                if theirs is not None:
                    self.add(theirs)
                    return True
                self.remove(mine)
            self.add(other)
        return False

    def why_not(self, model: WantedModel) -> str:
        """Why the next replica of a model fits nowhere, in a sentence."""
        if not self._workers:
            return "No worker is registered."
        able = [worker for worker in self._workers.values() if model.engine in worker.engines]
        if not able:
            return f"No worker has the engine {model.engine}."
        staying = [worker for worker in able if not worker.draining]
        if not staying:
            return f"All workers with the engine {model.engine} are draining."
        counts = [_device_count(model, worker) for worker in staying]
        if all(count > len(worker.devices) for count, worker in zip(counts, staying, strict=True)):
            most = max(len(worker.devices) for worker in staying)
            return f"A replica needs {model.devices} GPUs on one worker; the worker with the most has {most}."
        return self._short_of_memory(model, staying)

    def _short_of_memory(self, model: WantedModel, staying: list[Worker]) -> str:
        free, worker_id, index = max(
            (self._free[worker.id, index], worker.id, index) for worker in staying for index in worker.devices
        )
        if model.memory_bytes is None:
            return (
                "The model's memory is unknown, so a replica needs a device for itself, and none is free. "
                "Set memory_bytes."
            )
        count = _device_count(model, self._workers[worker_id])
        need = -(-model.memory_bytes // count)
        if self._share(model, self._workers[worker_id], index) > need:
            return (
                f"The engine takes {model.gpu_share:.0%} of each GPU, whatever the model needs, and no GPU has so much "
                "free. Set gpu_memory_utilization (SGLang: mem_fraction_static) to a smaller value, or add a worker."
            )
        where = f" on each of {count} GPUs" if count > 1 else ""
        return (
            f"A replica needs {_gigabytes(need)}{where}; the most that is free on one device is {_gigabytes(free)}, "
            f"on worker {worker_id}."
        )

    def _devices(self, model: WantedModel, worker: Worker) -> tuple[int, ...] | None:
        if not self._suits(model, worker):
            return None
        free = sorted(
            (self._free[worker.id, index], index)
            for index in worker.devices
            if self._fits(model, worker, index)
        )
        count = _device_count(model, worker)
        return tuple(sorted(index for _, index in free[:count])) if len(free) >= count else None

    def _suits(self, model: WantedModel, worker: Worker) -> bool:
        return not worker.draining and model.engine in worker.engines

    def _fits(self, model: WantedModel, worker: Worker, index: int) -> bool:
        if index not in worker.devices:
            return False
        if model.memory_bytes is None:
            return not self._users[worker.id, index]
        return self._share(model, worker, index) <= self._free[worker.id, index]

    def _change(self, replica: Replica, sign: int) -> None:
        model, worker = self._models[replica.alias], self._workers[replica.worker]
        for index in replica.devices:
            self._free[worker.id, index] -= sign * self._share(model, worker, index)
            self._users[worker.id, index] += sign

    def _share(self, model: WantedModel, worker: Worker, index: int) -> int:
        """The bytes that a replica takes of a device. A replica of unknown size takes the whole device."""
        size = worker.devices[index]
        if model.memory_bytes is None:
            return size
        need = -(-model.memory_bytes // _device_count(model, worker))
        return need if index == HOST else max(need, int(size * model.gpu_share))

    @staticmethod
    def _size(model: WantedModel) -> int:
        return 1 << 62 if model.memory_bytes is None else model.memory_bytes


def _device_count(model: WantedModel, worker: Worker) -> int:
    return 1 if HOST in worker.devices else model.devices


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
