"""A workload like ``embed``, without torch or a model: requests share batches, and plain Python computes them.

The vector of a text is its length. The body of a request is a :class:`Wish`, which says how long the request's batches
take, whether they fail, and whether vectors go through the cache of ``embed``. With such requests, a
test can produce values of every metric of batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daybreak_server.workloads.base import Group, WorkloadSpec
from daybreak_server.workloads.bulk import BulkParams, LineError
from daybreak_server.workloads.embed.vector_cache import VectorCache
from daybreak_server.workloads.serving import Request, RequestError, Response
from daybreak_server.workloads.text_batches.batches import TextBatches, process_shown
from daybreak_server.workloads.text_batches.paths import Paths

CACHE_BYTES = 100_000
SPEC: WorkloadSpec[BulkParams] = WorkloadSpec(
    name="batch-echo",
    kind="online",
    Params=BulkParams,
    implementation="testkit.batch_echo:BatchEcho",
    capacity=64,
    batches=True,
)


class Wish(BaseModel):
    """How a request wants to be answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[str, ...] = Field(description="Texts, each of which is an item of a batch.")
    batch_s: float = Field(0.0, ge=0, description="The least duration of a batch with these texts, in s.")
    fails: bool = Field(False, description="Whether a batch with these texts raises an error.")
    cached: bool = Field(False, description="Whether the cache is used for these texts.")


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    wish: Wish


class BatchEcho:
    """Implements :class:`daybreak_server.workloads.serving.ServingWorkload`."""

    def load(self, group: Group) -> None:
        self._began = time.monotonic()
        self._cache = VectorCache(CACHE_BYTES, group.batch_meter)
        self._batches: TextBatches[_Text, int] = TextBatches(
            _run, group.options.get("batching", {}), group=group
        )
        self._paths = Paths(
            {
                ("POST", "/"): self._lengths,
                ("GET", "/debug"): lambda request: Response.of_json(
                    process_shown(self._began, "cpu") | self._batches.shown()
                ),
                ("GET", "/health"): lambda request: Response.of_json({"status": "ok"}),
            }
        )

    def warm_up(self) -> None: ...

    def serve(self, request: Request) -> Response:
        return self._paths.answer(request)

    def bulk(
        self, params: BulkParams, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        """The length of each text of a task; an error for each value that is not a text."""
        texts = [_Text(value, Wish(texts=(value,))) for value in values if isinstance(value, str)]
        lengths = iter(
            self._batches.compute_bulk(texts, [max(1, len(each.text)) for each in texts], cancelled=cancelled)
        )
        return [
            {"length": next(lengths)} if isinstance(value, str) else LineError("Not a text.")
            for value in values
        ]

    def set_batching(self, settings: dict[str, object]) -> None:
        self._batches.set_batching(settings)

    def close(self) -> None:
        """End the thread that runs the batches."""
        self._batches.close()

    def _lengths(self, request: Request) -> Response:
        try:
            wish = Wish.model_validate(request.json())
        except ValidationError as exc:
            raise RequestError(422, str(exc), code="invalid_wish") from exc
        keys = [VectorCache.key("document", tuple(text.encode())) for text in wish.texts]
        known = self._cache.get_each(keys) if wish.cached else [None] * len(keys)
        missing = [number for number, vector in enumerate(known) if vector is None]
        texts = [_Text(wish.texts[number], wish) for number in missing]
        computed = self._batches.compute(request, texts, [max(1, len(each.text)) for each in texts])
        lengths = [0 if vector is None else vector[0] for vector in known]
        for number, length in zip(missing, computed, strict=True):
            lengths[number] = length
            if wish.cached:
                self._cache.put(keys[number], memoryview(bytes([length % 256])))
        return Response.of_json(lengths)


def _run(batch: Sequence[_Text]) -> list[int]:
    time.sleep(max(each.wish.batch_s for each in batch))
    if any(each.wish.fails for each in batch):
        raise ValueError("a request asked that its batch fails")
    return [len(each.text) for each in batch]
