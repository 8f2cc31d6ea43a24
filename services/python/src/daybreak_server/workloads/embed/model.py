"""Loads an embedding model from a local folder. The folder also says how to pool and normalise the vectors.

``sentence-transformers`` computes the vectors. The model may be an encoder (BERT, E5, BGE, …) or based on an LLM
(Qwen3-Embedding, …). Encoders and LLMs use different kinds of pooling. Daybreak turns texts into tokens itself,
because it forms batches by length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from daybreak_server.workloads.base import Group, ModelMissingError
from daybreak_server.workloads.embed.spec import EmbedOptions
from daybreak_server.workloads.text_batches.device import (
    check_finite,
    device_of,
    folder_of,
    padded,
    positions_of,
    sentence_transformers,
)
from daybreak_server.workloads.text_batches.tokens import MANY, TextTokenizer, Tokens

PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage")}
"""For each kind of text: the names that the folders of models give to its prompt."""


class EmbedInput(NamedTuple):
    """A text as the model reads it."""

    tokens: Tokens
    prompt_length: int
    """The number of tokens at the beginning that pooling leaves out; 0 if it leaves out none."""


class EmbedModel:
    """The model. ``encode`` must run on one thread at a time.

    :raises ModelMissingError: if the model or its package is missing or cannot be loaded.
    """

    def __init__(self, options: EmbedOptions, group: Group) -> None:
        folder = folder_of(options.model, group)
        package = sentence_transformers()
        import torch

        self.device = device_of(group)
        try:
            self._model: Any = package.SentenceTransformer(
                folder,
                device=self.device,
                local_files_only=True,
                model_kwargs={"dtype": getattr(torch, options.dtype)},
            ).eval()
        except (OSError, ValueError, KeyError) as exc:
            raise ModelMissingError(f"the model in {folder} cannot be loaded: {exc}") from exc
        self._transformer = self._model[0]
        tokenizer = self._model.tokenizer
        self.prompts = {kind: self._prompt(kind, options) for kind in PROMPT_NAMES}
        config = getattr(self._transformer, "config", None)
        max_tokens = int(options.max_tokens or self._model.max_seq_length or MANY)
        self.tokenizer = TextTokenizer(
            tokenizer,
            max_tokens=min(max_tokens, positions_of(self._transformer), int(tokenizer.model_max_length)),
            cut=options.too_long == "cut",
            lower=bool(getattr(self._transformer, "do_lower_case", False)),
            vocabulary=getattr(config, "vocab_size", None),
        )
        self._pad = tokenizer.pad_token_id or 0
        self._left = tokenizer.padding_side == "left"
        self._pools_prompt = all(getattr(module, "include_prompt", True) for module in self._model)
        self.dimensions = int(self._model.get_embedding_dimension())

    def prompt_length(self, kind: str) -> int:
        """How many tokens at the beginning of each text are left out of the pooling."""
        prompt = self.prompts[kind]
        if self._pools_prompt or not prompt:
            return 0
        return len(self.tokenizer.before) + len(self.tokenizer.plain(prompt))

    def encode(self, inputs: Sequence[EmbedInput]) -> list[Any]:
        """A vector (a numpy array, float32) for each input.

        :raises FloatingPointError: if a number of a vector is not finite.
        """
        import torch

        found: list[Any] = [None] * len(inputs)
        # In one call of the model, the prompts of all inputs must have the same length.
        for length in {each.prompt_length for each in inputs}:
            chosen = [number for number, each in enumerate(inputs) if each.prompt_length == length]
            features = padded(
                [inputs[number].tokens for number in chosen],
                pad=self._pad,
                left=self._left,
                device=self.device,
            )
            if length:
                features["prompt_length"] = length
            with torch.inference_mode():
                vectors = check_finite(self._model(features)["sentence_embedding"].float()).cpu().numpy()
            for number, vector in zip(chosen, vectors, strict=True):
                found[number] = vector.copy()  # not a view, which would keep the whole batch in memory
        return found

    def _prompt(self, kind: str, options: EmbedOptions) -> str:
        own = options.prompts.get(kind)  # type: ignore[call-overload]
        if own is not None:
            return str(own)
        prompts = self._model.prompts or {}
        return next((prompts[name] for name in PROMPT_NAMES[kind] if prompts.get(name)), "")
