"""Checks the folder of a speech translation model: ``daybreakd models verify FOLDER``.

The check reads the JSON files, the tokenizer and the headers of the weights. On torch's device ``meta``, which
allocates no memory, it builds the parts that the configurations describe. It compares the names and shapes of their
tensors with those of the files. So the check finds most errors that would keep a group from loading the model. It
also finds missing tensors, which transformers would silently fill with random numbers. It does not read the weights
themselves.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from daybreak_server.workloads.languages import LanguagePair
from daybreak_server.workloads.speech.encoder import EncoderConfig, SpeechEncoder
from daybreak_server.workloads.speech.folder import SpeechFolder, language_model_config, to_hugging_face
from daybreak_server.workloads.speech.hub_vocabulary import HubVocabulary
from daybreak_server.workloads.speech.language_model import LanguageModel, LanguageModelConfig
from daybreak_server.workloads.speech.vocabulary import WordVocabulary
from daybreak_server.workloads.speech.window_encoder import block_states, new_adapter
from daybreak_server.workloads.weight_files import (
    Finding,
    Shape,
    against,
    error,
    header,
    weights,
    worst_first,
)

_STREAMING: Final = {
    field.name: field.default is MISSING
    for field in fields(SpeechFolder)
    if field.name not in {"encoder", "language_model", "vocabulary"}
}
"""The members of ``streaming`` in ``config.json``, and for each whether it is required."""
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json")
_OPTIONAL: Final = frozenset({"masked_spec_embed"})
"""Tensors that an encoder may lack, because only training uses them."""
_OLD_NAMES: Final = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}
"""The endings that older versions of torch gave to names of tensors, and the endings that torch gives now."""
_SEE: Final = "see “Your own model” in docs/12-speech-model.md"


class _WrongFileError(ValueError):
    """A JSON file cannot be used. The message names the file."""


def verify(folder: Path) -> list[Finding]:
    """Findings about the folder of a model, worst first. An error keeps a group from loading the model, or from using
    it."""
    return worst_first(_findings(Path(folder)))


def _findings(folder: Path) -> Iterator[Finding]:
    try:
        config = _read_json(folder / "config.json")
        encoder, streaming = config.get("encoder"), config.get("streaming")
        for name, section in (("encoder", encoder), ("streaming", streaming)):
            if not isinstance(section, dict):
                raise _WrongFileError(f"{folder / 'config.json'} has no object {name!r}; {_SEE}.")
    except _WrongFileError as exc:
        yield error(str(exc))
        return
    assert encoder is not None
    assert streaming is not None
    yield from _streaming(folder / "config.json", streaming)
    language_model = yield from _language_model(folder / "language_model")
    kind = encoder.get("type", "causal")
    if kind == "causal":
        yield from _causal_encoder(folder, encoder, language_model)
    elif kind in _CLASSES:
        yield from _hub_encoder(folder, encoder, language_model)
    else:
        yield error(f"{folder / 'config.json'}: encoder.type is {kind!r}; use causal, wav2vec2 or whisper.")
    pairs = yield from _vocabulary(folder, config.get("vocabulary"), language_model)
    if language_model is not None and pairs:
        yield _summary(folder, kind, language_model, pairs)


def _summary(
    folder: Path, kind: str, language_model: LanguageModelConfig, pairs: tuple[LanguagePair, ...]
) -> Finding:
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    languages = ", ".join(f"{pair.source_name} -> {pair.target_name}" for pair in pairs)
    return Finding(
        level="info",
        message=f"speech translator: {kind} encoder, language model of {language_model.layers} layers and width "
        f"{language_model.width}, {size / 1e6:,.1f} MB; {languages}.",
    )


def _streaming(path: Path, content: Mapping[str, Any]) -> Iterator[Finding]:
    for name, needed in _STREAMING.items():
        if name not in content:
            if needed:
                yield error(f"{path}: streaming has no {name}; {_SEE}.")
        elif not isinstance(content[name], int) or content[name] < 0:
            yield error(f"{path}: streaming.{name} is {content[name]!r}, not a whole number.")
    for name in sorted(set(content) - set(_STREAMING)):
        yield error(f"{path}: streaming has an unknown member {name}; remove it.")


def _language_model(folder: Path) -> Generator[Finding, None, LanguageModelConfig | None]:
    path = folder / "config.json"
    try:
        config = language_model_config(_read_json(path))
    except _WrongFileError as exc:
        yield error(str(exc))
        return None
    except KeyError as exc:
        yield error(f"{path} has no {exc}; fetch the file again.")
        return None
    except (ValueError, TypeError) as exc:
        yield error(f"{path}: {exc}.")
        return None
    with torch.device("meta"):
        expected = _shapes(to_hugging_face(LanguageModel(config)))
    yield from _part(folder, expected)
    return config


def _causal_encoder(
    folder: Path, content: Mapping[str, Any], language_model: LanguageModelConfig | None
) -> Iterator[Finding]:
    path = folder / "config.json"
    try:
        config = EncoderConfig(**{name: value for name, value in content.items() if name != "type"})
        with torch.device("meta"):
            expected = _shapes(SpeechEncoder(config).state_dict())
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as exc:
        yield error(f"{path}: the object 'encoder' does not describe an encoder ({exc}); {_SEE}.")
        return
    if language_model is not None and config.output != language_model.width:
        yield error(
            f"{path}: encoder.output is {config.output}, but the language model has the width {language_model.width}."
        )
    yield from _file(folder / "encoder.safetensors", expected)


def _hub_encoder(
    folder: Path, content: Mapping[str, Any], language_model: LanguageModelConfig | None
) -> Iterator[Finding]:
    path, encoder = folder / "config.json", folder / "encoder"
    lacking = [
        name for name in ("block_ms", "left_blocks", "stack") if not isinstance(content.get(name), int)
    ]
    for name in lacking:
        yield error(f"{path}: encoder.{name} must be a whole number; {_SEE}.")
    try:
        if not lacking:
            block_states(content)
    except (ValueError, ZeroDivisionError) as exc:
        yield error(f"{path}: {exc}.")
    width: int | None = None
    for name in ("preprocessor_config.json", "config.json"):
        try:
            found = _read_json(encoder / name)
            width = _width(encoder / name, content["type"], found) if name == "config.json" else None
        except _WrongFileError as exc:
            yield error(str(exc))
    if width is None:
        return
    yield from _encoder_weights(encoder, content["type"])
    if language_model is not None and not lacking:
        with torch.device("meta"):
            adapter = new_adapter(content["stack"], width, language_model.width)
        yield from _file(folder / "adapter.safetensors", _shapes(adapter.state_dict()))


def _width(path: Path, kind: str, content: Mapping[str, Any]) -> int:
    """The width of an encoder. :raises _WrongFileError: if the file does not describe an encoder of this kind."""
    if content.get("model_type") != kind:
        raise _WrongFileError(
            f"{path}: model_type is {content.get('model_type')!r}, but encoder.type in the model's config.json is "
            f"{kind!r}."
        )
    name = _CLASSES[kind][1]
    if not isinstance(content.get(name), int):
        raise _WrongFileError(f"{path} has no {name}; fetch the file again.")
    return int(content[name])


def _encoder_weights(folder: Path, kind: str) -> Iterator[Finding]:
    if not list(folder.glob("*.safetensors")) and list(folder.glob("*.bin")):
        yield Finding(
            level="warning",
            message=f"{folder} has only pickled .bin weights, whose tensors this check cannot read.",
        )
        return
    import transformers

    name, _, part, prefix = _CLASSES[kind]
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            module: nn.Module = getattr(transformers, name)(config)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as exc:
        yield error(
            f"{folder / 'config.json'} does not describe a {kind} encoder ({exc}); fetch the file again."
        )
        return
    expected = {
        tensor: shape
        for tensor, shape in _shapes(module.state_dict()).items()
        if tensor.startswith(part) and tensor not in _OPTIONAL
    }
    yield from _part(folder, expected, prefix=prefix)


_CLASSES: Final = {
    "wav2vec2": ("Wav2Vec2Model", "hidden_size", "", "wav2vec2."),
    "whisper": ("WhisperModel", "d_model", "encoder.", "model."),
}
"""For each type of encoder, four values: its class in transformers; the member of its configuration that holds the
width; how the names of the encoder's tensors begin; and what comes before these names in the files of a larger model.
"""


def _vocabulary(
    folder: Path, content: Mapping[str, Any] | None, language_model: LanguageModelConfig | None
) -> Generator[Finding, None, tuple[LanguagePair, ...]]:
    path = folder / ("vocabulary.json" if content is None else "config.json")
    tokenizer = folder / "language_model"
    if content is not None and not any((tokenizer / name).is_file() for name in _TOKENIZERS):
        yield error(f"{tokenizer} has no tokenizer ({', '.join(_TOKENIZERS)}); fetch its files too.")
        return ()
    try:
        if content is None:
            words = WordVocabulary(_read_json(path))
            pairs, largest = words.pairs, len(words.tokens) - 1
        else:
            hub = HubVocabulary(tokenizer, content)
            pairs, largest = hub.pairs, hub.largest
    except _WrongFileError as exc:
        yield error(str(exc))
        return ()
    except KeyError as exc:
        yield error(f"{path}: the vocabulary has no {exc}; {_SEE}.")
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        yield error(f"{path}: the vocabulary cannot be used: {exc}.")
        return ()
    if language_model is not None and largest >= language_model.vocabulary:
        yield error(
            f"{path}: the vocabulary uses the token {largest}, but the language model has only "
            f"{language_model.vocabulary} tokens."
        )
    return pairs


def _part(folder: Path, expected: Mapping[str, Shape], *, prefix: str = "") -> Iterator[Finding]:
    """Check the weights of a part in the layout of Hugging Face. Names of tensors may begin with ``prefix``."""
    problems = list(weights(folder))
    yield from problems
    if any(problem.level == "error" for problem in problems):
        return
    found: dict[str, Shape] = {}
    for path in folder.glob("*.safetensors"):
        found |= {_present_name(name.removeprefix(prefix)): shape for name, shape in header(path).items()}
    yield from against(folder, found, expected)


def _present_name(name: str) -> str:
    for ending, now in _OLD_NAMES.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + now
    return name


def _file(path: Path, expected: Mapping[str, Shape]) -> Iterator[Finding]:
    """Check a file that must have exactly these tensors."""
    try:
        found = header(path)
    except OSError:
        yield error(f"{path} is missing; {_SEE}.")
        return
    except ValueError as exc:
        yield error(str(exc))
        return
    yield from against(path, found, expected)
    more = sorted(set(found) - set(expected))
    if more:
        yield error(f"{path} has unknown tensors, such as {more[0]}; it must have {', '.join(expected)}.")


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise _WrongFileError(f"{path} is missing; {_SEE}.") from exc
    except (OSError, ValueError) as exc:
        raise _WrongFileError(f"{path} is not readable JSON ({exc}); fetch the file again.") from exc
    if not isinstance(content, dict):
        raise _WrongFileError(f"{path} must hold a JSON object; {_SEE}.")
    return content
