"""A model that squares numbers, and helpers for tests of tasks over files."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daybreak_server.engines.serving.bulk.output import Output
from daybreak_server.workloads.base import Group, WorkloadSpec
from daybreak_server.workloads.bulk import BulkParams, LineError
from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text_batches.batches import TextBatches
from testkit.pools import Pool

POISON = 1_000_001
"""A batch with this number fails."""
NAN = 1_000_002
"""In bulk tasks, the result for this number is NaN, as from a model whose numbers overflow."""
HELD = 1500
"""While the file that the option `hold` names exists, a batch with a number of at least `HELD` takes `_CRAWL_S`
longer."""
_CRAWL_S = 0.3
"""Long enough for a test to kill the process during a batch, and short enough that each step ends soon, because the
test first waits until a step reports a checkpoint."""


class Squares:
    """Squares numbers, in batches that requests and tasks share. Tests can pause the model, and see the batches."""

    models = ("squares",)
    bulk_version = "1"
    go = threading.Event()
    go.set()
    batches: list[list[int]] = []  # noqa: RUF012 - the tests reset it
    broken = False

    @classmethod
    def reset(cls) -> None:
        """Restore the state at the start of a test."""
        cls.go.set()
        cls.batches.clear()
        cls.broken = False
        cls.bulk_version = "1"

    def load(self, group: Group) -> None:
        self._batches: TextBatches[int, int] = TextBatches(
            self._model, {"max_batch_size": 16, **group.options.get("batching", {})}, group=group
        )
        self._hold = group.options.get("hold")
        if self._hold:
            Output.restore = _held(Output.restore, Path(self._hold).with_suffix(".resume"))  # type: ignore[method-assign]

    def warm_up(self) -> None:
        pass

    def serve(self, request: Request) -> Response:
        number = json.loads(request.body)
        return Response.of_json(self._batches.compute(request, [number], [1])[0])

    def bulk(
        self, _params: BulkParams, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        numbers = [value["n"] if isinstance(value, dict) else value for value in values]
        good = [number for number in numbers if isinstance(number, int)]
        computed = self._batches.compute_bulk(good, [1] * len(good), cancelled=cancelled)
        squares = iter([math.nan if square == NAN**2 else square for square in computed])
        return [
            {"square": next(squares)}
            if isinstance(number, int)
            else LineError("Not a number.", code="no_number")
            for number in numbers
        ]

    def _model(self, numbers: Sequence[int]) -> Sequence[int]:
        type(self).batches.append(list(numbers))
        assert self.go.wait(60)
        if self._hold and max(numbers) >= HELD and Path(self._hold).exists():
            time.sleep(_CRAWL_S)  # during this sleep, the test kills the group's process
        if self.broken or POISON in numbers:
            raise ValueError("the model cannot square this")
        return [number**2 for number in numbers]


def _held(restore: Callable[[Output], Iterator[None]], hold: Path) -> Callable[[Output], Iterator[None]]:
    """Return a function that waits until the file ``hold`` is gone, and then does what ``restore`` does.

    The returned function yields while it waits, so the task stays in the phase ``resume``. Only a group in its own
    process may use the option ``hold``, because this option replaces ``Output.restore`` in the whole process.
    """

    def held(output: Output) -> Iterator[None]:
        while hold.exists():
            yield
            time.sleep(0.02)
        yield from restore(output)

    return held


SPEC: WorkloadSpec[BulkParams] = WorkloadSpec(
    name="squares", kind="online", Params=BulkParams, implementation="testkit.squares:Squares", capacity=8
)


def write(folder: Path, lines: Sequence[Any], name: str = "numbers.jsonl") -> dict[str, str]:
    """Write a JSONL file into ``folder/files``; strings are written as they are. :returns: its place and path."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "files" / name).write_text(text)
    return {"place": "files", "path": name}


def output(pool: Pool, task: Any) -> list[dict[str, Any]]:
    """The parsed lines of the task's ``output.jsonl``."""
    return [json.loads(line) for line in pool.output(task, "output.jsonl").splitlines()]


def squares(numbers: Sequence[int]) -> list[dict[str, int]]:
    """The expected lines of the output for these numbers."""
    return [{"line": line, "square": number**2} for line, number in enumerate(numbers, 1)]
