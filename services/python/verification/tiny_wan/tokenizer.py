"""A byte-level tokenizer that needs no download: one token for each byte of lower-cased UTF-8, then `</s>`."""

from __future__ import annotations

from typing import Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL: Final = ("<pad>", "</s>", "<unk>")
MAX_LENGTH: Final = 48
"""A prompt is padded or cut to this many tokens. Wan attends to the padding, so sampling must use the same length as
training."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE tokenizer over the 256 byte symbols, without merges.

    Its ``save_pretrained`` writes tokenizer.json and tokenizer_config.json.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
    )
