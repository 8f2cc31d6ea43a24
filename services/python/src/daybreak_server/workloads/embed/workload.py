"""The workload ``embed`` computes vectors of texts, for HTTP requests and for tasks over files. The module
:mod:`~daybreak_server.workloads.embed.answers` reads the requests.

Each request is tokenised on its own thread. Texts that are not in the cache go into the batches of the group
(:mod:`~daybreak_server.workloads.text_batches.batches`). One batch may have texts of several requests. The texts of a
task's file skip the cache and go into the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daybreak_server.workloads.base import Group, PermanentError
from daybreak_server.workloads.bulk import LineError
from daybreak_server.workloads.embed.answers import EmbedRequest, answer, read_openai, read_plain, shown
from daybreak_server.workloads.embed.model import EmbedInput, EmbedModel
from daybreak_server.workloads.embed.spec import EmbedParams, options_of
from daybreak_server.workloads.embed.vector_cache import VectorCache
from daybreak_server.workloads.serving import Request, Response
from daybreak_server.workloads.text_batches.batches import TextBatches, process_shown
from daybreak_server.workloads.text_batches.device import folder_of
from daybreak_server.workloads.text_batches.lines import computed, text_in
from daybreak_server.workloads.text_batches.paths import Paths
from daybreak_server.workloads.text_batches.version import version_of


class Embed:
    """Implements :class:`~daybreak_server.workloads.serving.ServingWorkload` and
    :class:`~daybreak_server.workloads.bulk.BulkWorkload`."""

    def load(self, group: Group) -> None:
        """Load the model. :raises ModelMissingError: if the folder has no model that this workload can run."""
        self._began = time.monotonic()
        self._options = options_of(group.options)
        self._model = EmbedModel(self._options, group)
        self.models = (self._options.name,)
        self.bulk_version = version_of(folder_of(self._options.model, group), self._options)
        max_bytes = int(self._options.cache_mb * 1_000_000)
        self._cache = VectorCache(max_bytes, group.batch_meter) if max_bytes else None
        self._batches: TextBatches[EmbedInput, Any] = TextBatches(
            self._model.encode, self._options.batching, group=group
        )
        self._paths = Paths(
            {
                ("POST", "/v1/embeddings"): self._openai,
                ("POST", "/embedding/api"): self._plain,
                ("GET", "/debug"): self._debug,
                ("GET", "/health"): lambda request: Response.of_json({"status": "ok"}),
            }
        )

    def warm_up(self) -> None:
        """Encode a text."""
        tokens = self._model.tokenizer.texts(["Good morning."], ["warm-up"])[0]
        self._model.encode([EmbedInput(tokens, 0)])

    def serve(self, request: Request) -> Response:
        """Answer one request."""
        return self._paths.answer(request)

    def bulk(
        self, params: EmbedParams, values: Sequence[Any], *, cancelled: Callable[[], bool]
    ) -> Sequence[Mapping[str, Any] | LineError]:
        """The vector of each text of a task.

        :raises PermanentError: if the task asks for more dimensions than the model has.
        """
        if params.dimensions is not None and params.dimensions > self._model.dimensions:
            message = (
                f"dimensions is {params.dimensions}; vectors of this model have {self._model.dimensions}."
            )
            raise PermanentError(message, code="invalid_input")
        tokenizer, prompt = self._model.tokenizer, self._model.prompts[params.input_type]
        length = self._model.prompt_length(params.input_type)

        def read(value: Any) -> EmbedInput:
            return EmbedInput(tokenizer.texts([text_in(value, "text")], ["text"], prefix=prompt)[0], length)

        def embedded(inputs: Sequence[EmbedInput]) -> Sequence[Mapping[str, Any]]:
            lengths = [len(each.tokens.ids) for each in inputs]
            vectors = self._batches.compute_bulk(inputs, lengths, cancelled=cancelled)
            base64 = params.encoding_format == "base64"
            return [
                {"embedding": shown(vector, dimensions=params.dimensions, base64=base64)}
                | ({"cut": True} if each.tokens.cut else {})
                for each, vector in zip(inputs, vectors, strict=True)
            ]

        return computed(values, read, embedded)

    def set_batching(self, settings: Mapping[str, Any]) -> None:
        """Change how batches form, from the next batch on."""
        self._batches.set_batching(settings)

    def _openai(self, request: Request) -> Response:
        max_inputs = self._options.max_inputs
        return self._answer(
            request, read_openai(request, max_inputs=max_inputs, dimensions=self._model.dimensions)
        )

    def _plain(self, request: Request) -> Response:
        return self._answer(request, read_plain(request, max_inputs=self._options.max_inputs))

    def _answer(self, request: Request, wanted: EmbedRequest) -> Response:
        tokenizer, prompt = self._model.tokenizer, self._model.prompts[wanted.kind]
        if wanted.ids:
            tokens = tokenizer.ids(wanted.ids, wanted.fields, prefix=prompt)
        else:
            tokens = tokenizer.texts(wanted.texts, wanted.fields, prefix=prompt)
        length = self._model.prompt_length(wanted.kind)
        vectors = self._vectors(request, wanted.kind, [EmbedInput(each, length) for each in tokens])
        count = sum(len(each.ids) for each in tokens)
        request.count_tokens(input=count)
        cut = [number for number, each in enumerate(tokens) if each.cut]
        return answer(wanted, vectors, model=self._options.name, tokens=count, cut=cut)

    def _vectors(self, request: Request, kind: str, inputs: list[EmbedInput]) -> list[Any]:
        cache = self._cache
        if cache is None:
            return self._batches.compute(request, inputs, [len(each.tokens.ids) for each in inputs])
        keys = [cache.key(kind, each.tokens.ids) for each in inputs]
        vectors = cache.get_each(keys)
        missing = {key: number for number, key in enumerate(keys) if vectors[number] is None}
        chosen = [inputs[number] for number in missing.values()]
        computed = self._batches.compute(request, chosen, [len(each.tokens.ids) for each in chosen])
        found = dict(zip(missing, computed, strict=True))
        for key, vector in found.items():
            cache.put(key, vector)
        return [found[key] if vector is None else vector for key, vector in zip(keys, vectors, strict=True)]

    def _debug(self, request: Request) -> Response:
        shown = {
            "model": self._options.name,
            "max_tokens": self._model.tokenizer.max_tokens,
            **process_shown(self._began, self._model.device),
            **self._batches.shown(),
        }
        if self._cache is not None:
            shown["cache"] = self._cache.shown()
        return Response.of_json(shown)
