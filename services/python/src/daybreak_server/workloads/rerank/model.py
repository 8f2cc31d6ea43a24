"""Uses sentence-transformers to load a reranker from a local folder: a cross-encoder or a language model.

A cross-encoder reads a query and a document together and returns one score for the pair. A language model reads the
pair in a prompt that asks for ``yes`` or ``no``. Its score says how much likelier the answer ``yes`` is than ``no``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daybreak_server.workloads.base import Group, ModelMissingError
from daybreak_server.workloads.rerank.spec import RerankOptions
from daybreak_server.workloads.text_batches.device import (
    check_finite,
    device_of,
    folder_of,
    padded,
    positions_of,
    sentence_transformers,
)
from daybreak_server.workloads.text_batches.tokens import MANY, TextTokenizer, Tokens

PLACES = re.compile(r"\{(instruction|query|document)\}")
CAUSAL = "ForCausalLM"
KINDS = ("ForSequenceClassification", CAUSAL)
"""The endings of the names of architectures that can rank."""


class Score(NamedTuple):
    """The score of a pair. ``raw`` is the output of the model. An activation function turns it into ``relevance``. The
    function is the sigmoid, with values from 0 to 1, unless the folder of a cross-encoder names another function."""

    raw: float
    relevance: float


class RerankModel:
    """The reranker. ``score`` must run on one thread at a time.

    :raises ModelMissingError: if the model or its package is missing, or the model cannot be loaded or is no reranker.
    """

    def __init__(self, options: RerankOptions, group: Group) -> None:
        folder = folder_of(options.model, group)
        package = sentence_transformers()
        import torch

        self.device = device_of(group)
        self._options = options
        self._is_language_model = _is_language_model(options, folder)
        arguments: dict[str, Any] = {"model_kwargs": {"dtype": getattr(torch, options.dtype)}}
        try:
            if self._is_language_model:
                self._model = self._language_model(package, folder, arguments)
            else:
                self._model = package.CrossEncoder(
                    folder, device=self.device, local_files_only=True, **arguments
                )
        except (OSError, ValueError, KeyError) as exc:
            raise ModelMissingError(f"the model in {folder} cannot be loaded: {exc}") from exc
        self._model.eval()
        if self._model.num_labels != 1:
            raise ModelMissingError(
                f"the model in {folder} has {self._model.num_labels} scores for each pair; a reranker has one"
            )
        tokenizer = self._model.tokenizer
        max_tokens = int(options.max_tokens or self._model.max_seq_length or MANY)
        self.tokenizer = TextTokenizer(
            tokenizer,
            max_tokens=min(max_tokens, positions_of(self._model[0]), int(tokenizer.model_max_length)),
            cut=options.too_long == "cut",
        )
        self._pad = tokenizer.pad_token_id or 0
        self._left = self._is_language_model or tokenizer.padding_side == "left"
        self._before = self.tokenizer.plain(options.before) if self._is_language_model else ()
        self._after = self.tokenizer.plain(options.after) if self._is_language_model else ()

    def tokens(
        self, pairs: Sequence[tuple[str, str]], fields: Sequence[str], *, cut: bool = False
    ) -> list[Tokens]:
        """The tokens of pairs of a query and a document.

        :param fields: the name of each pair in error messages.
        :param cut: whether a document that is too long is cut, even if the options say that it is an error.
        :raises RequestError: if a pair is too long and must not be cut, or its query leaves no room for the document.
        """
        if not self._is_language_model:
            return self.tokenizer.pairs(pairs, fields, cut=cut)
        return [
            self.tokenizer.framed(self._before, self._body(query, document), self._after, field, cut=cut)
            for (query, document), field in zip(pairs, fields, strict=True)
        ]

    def score(self, inputs: Sequence[Tokens]) -> list[Score]:
        """The score of each pair. :raises FloatingPointError: if a score is not finite."""
        import torch

        features = padded(inputs, pad=self._pad, left=self._left, device=self.device)
        if self._is_language_model:
            features["logits_to_keep"] = 1
        with torch.inference_mode():
            raw = check_finite(self._model(features)["scores"].float())
            relevance = self._model.activation_fn(raw)
        pairs = zip(raw.flatten().tolist(), relevance.flatten().tolist(), strict=True)
        return [Score(*pair) for pair in pairs]

    def _body(self, query: str, document: str) -> str:
        values = {"{instruction}": self._options.instruction, "{query}": query, "{document}": document}
        return PLACES.sub(lambda place: values[place.group()], self._options.body)

    def _language_model(self, package: Any, folder: str, arguments: dict[str, Any]) -> Any:
        import torch
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        options = self._options
        local = {"local_files_only": True}
        transformer = Transformer(
            folder,
            transformer_task="text-generation",
            model_kwargs={**arguments["model_kwargs"], **local},
            processor_kwargs={**local, "padding_side": "left"},
            config_kwargs=local,
        )
        words = {word: self._token(transformer.tokenizer, word) for word in (options.yes, options.no)}
        score = LogitScore(true_token_id=words[options.yes], false_token_id=words[options.no])
        return package.CrossEncoder(
            modules=[transformer, score], device=self.device, activation_fn=torch.nn.Sigmoid()
        )

    @staticmethod
    def _token(tokenizer: Any, word: str) -> int:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise ModelMissingError(
                f"the word {word!r} is not one token of the model; choose other words for the options `yes` and `no`"
            )
        return int(ids[0])


def _is_language_model(options: RerankOptions, folder: str) -> bool:
    """Whether the model is a language model.

    :raises ModelMissingError: if the option ``kind`` is ``auto``, and ``config.json`` names a model of neither kind.
    """
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = [str(name) for name in config.get("architectures") or ()]
    if options.kind == "auto" and names and not any(name.endswith(KINDS) for name in names):
        # sentence-transformers would give this model a head of random weights, so its scores would mean nothing.
        raise ModelMissingError(
            f"the model in {folder} is a {names[0]}, which has no score for pairs; use a cross-encoder or a language "
            "model"
        )
    if options.kind != "auto":
        return options.kind == "language-model"
    return any(name.endswith(CAUSAL) for name in names)
