"""``rerank``: scores pairs of a query and a text, over HTTP. See :mod:`~daybreak_server.workloads.rerank.answers` for
the requests.

Each request is tokenised on its own thread. Its pairs then go into the batches of the group
(:mod:`~daybreak_server.workloads.text_batches.batches`). A batch may hold the pairs of several callers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.bulk import BulkParams, LineError
from daybreak_server.workloads.rerank.answers import RerankRequest, answer, read_cohere, read_plain, read_tei
from daybreak_server.workloads.rerank.model import RerankModel, Score
from daybreak_server.workloads.rerank.spec import options_of
from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text_batches.batches import TextBatches, process_shown
from daybreak_server.workloads.text_batches.device import folder_of
from daybreak_server.workloads.text_batches.lines import computed, text_in
from daybreak_server.workloads.text_batches.paths import Paths
from daybreak_server.workloads.text_batches.tokens import Tokens
from daybreak_server.workloads.text_batches.version import version_of


class Rerank:
    """Implements :class:`~daybreak_server.workloads.serving.ServingWorkload` and
    :class:`~daybreak_server.workloads.bulk.BulkWorkload`."""

    def load(self, group: Group) -> None:
        """Load the model. :raises ModelMissingError: if there is none that this workload can run."""
        self._began = time.monotonic()
        self._options = options_of(group.options)
        self._model = RerankModel(self._options, group)
        self.models = (self._options.name,)
        self.bulk_version = version_of(folder_of(self._options.model, group), self._options)
        self._batches: TextBatches[Tokens, Score] = TextBatches(
            self._model.score, self._options.batching, group=group
        )
        self._paths = Paths(
            {
                ("POST", "/v1/rerank"): self._answering(read_cohere),
                ("POST", "/v2/rerank"): self._answering(read_cohere),
                ("POST", "/rerank"): self._answering(read_tei),
                ("POST", "/reranker/api"): self._answering(read_plain),
                ("GET", "/debug"): self._debug,
                ("GET", "/health"): lambda request: Response.of_json({"status": "ok"}),
            }
        )

    def warm_up(self) -> None:
        """Score a pair."""
        self._model.score(self._model.tokens([("a", "a")], ["warm-up"]))

    def serve(self, request: Request) -> Response:
        """Answer one request."""
        return self._paths.answer(request)

    def bulk(
        self, params: BulkParams, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        """The score of each pair of a task. Each line of the task's file is an object with ``query`` and ``text``."""

        def read(value: Any) -> Tokens:
            if not isinstance(value, dict):
                raise LineError("The line must be an object with `query` and `text`.", code="invalid_input")
            pair = (text_in(value, "query"), text_in(value, "text"))
            return self._model.tokens([pair], ["text"])[0]

        def scored(inputs: Sequence[Tokens]) -> Sequence[Mapping[str, Any]]:
            lengths = [len(each.ids) for each in inputs]
            scores = self._batches.compute_bulk(inputs, lengths, cancelled=cancelled)
            return [
                {"relevance_score": score.relevance} | ({"cut": True} if each.cut else {})
                for each, score in zip(inputs, scores, strict=True)
            ]

        return computed(values, read, scored)

    def set_batching(self, settings: Mapping[str, object]) -> None:
        """Change how batches form, from the next batch on."""
        self._batches.set_batching(settings)

    def _answering(self, read: Callable[..., RerankRequest]) -> Callable[[Request], Response]:
        def answered(request: Request) -> Response:
            wanted = read(request, max_inputs=self._options.max_inputs)
            tokens = self._model.tokens(wanted.pairs, wanted.fields, cut=wanted.cut)
            scores = self._batches.compute(request, tokens, [len(each.ids) for each in tokens])
            count = sum(len(each.ids) for each in tokens)
            request.count_tokens(input=count)
            cut = [number for number, each in enumerate(tokens) if each.cut]
            return answer(wanted, scores, model=self._options.name, tokens=count, cut=cut)

        return answered

    def _debug(self, request: Request) -> Response:
        return Response.of_json(
            {
                "model": self._options.name,
                "max_tokens": self._model.tokenizer.max_tokens,
                **process_shown(self._began, self._model.device),
                **self._batches.shown(),
            }
        )
