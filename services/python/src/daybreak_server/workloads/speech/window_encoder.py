"""Streams audio through an encoder that was not made for streaming: wav2vec 2.0 or Whisper, as in transformers.

These encoders see their whole input at once, so they have no cache that stays valid when more audio comes.
For each new block, the encoder computes this block and, once more, the ``left_blocks`` before it. Only the states of
the new block go through the adapter. A session keeps only the audio of these blocks, so its state has a fixed size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from daybreak_server.workloads.speech.features import SAMPLE_RATE

STATE_SAMPLES: Final = 320
"""Both encoders compute one state for every 20 ms of audio."""
_WAV2VEC2_MORE: Final = 80
"""The convolutions of wav2vec 2.0 need 400 samples for the first state: 320, and 80 from before the window."""


def block_states(content: Mapping[str, Any]) -> int:
    """The number of states of one block. :raises ValueError: if the adapter cannot stack them."""
    states = int(content["block_ms"] * SAMPLE_RATE // 1000 // STATE_SAMPLES)
    if states < 1 or states % content["stack"]:
        raise ValueError(
            f"a block has {states} states of 20 ms, which is no multiple of stack: {content['stack']}"
        )
    return states


def new_adapter(stack: int, encoder_width: int, width: int) -> nn.Sequential:
    """A new adapter. It turns stacked states of the encoder into embeddings for the language model."""
    inner = 2 * encoder_width
    return nn.Sequential(nn.Linear(stack * encoder_width, inner), nn.SiLU(), nn.Linear(inner, width))


class WindowEncoder:
    """Implements :class:`~daybreak_server.workloads.speech.streaming.StreamingEncoder`.

    :raises ValueError: if the adapter cannot stack the states of a block.
    :raises KeyError: if ``content`` lacks a field.
    """

    def __init__(
        self, folder: Path, content: Mapping[str, Any], *, width: int, dtype: torch.dtype, device: str
    ) -> None:
        stack, states = content["stack"], block_states(content)
        self._states, self._stack, self._device, self._dtype = states, stack, device, dtype
        self.block_samples, self.block_embeddings = states * STATE_SAMPLES, states // stack
        self._window = self.block_samples * (content["left_blocks"] + 1)
        self._encoder = _ENCODERS[content["type"]](folder / "encoder", dtype, device)
        self._adapter = new_adapter(stack, self._encoder.width, width)
        self._adapter.load_state_dict(load_file(folder / "adapter.safetensors"))
        self._adapter.to(device, dtype).eval()
        self.slot_bytes = 4 * (self._window + _WAV2VEC2_MORE)

    def reserve(self, slots: int) -> None:
        """Reserve memory for the audio of all slots."""
        self._audio = torch.zeros(slots, self._window + _WAV2VEC2_MORE, device=self._device)

    def reset(self, slot: int) -> None:
        """Fill a slot with silence, for a new session."""
        self._audio[slot] = 0

    @torch.inference_mode()
    def encode(self, slots: Sequence[int], audio: Tensor) -> Tensor:
        """Encode one block of audio for each of these slots."""
        at = torch.tensor(slots, device=self._device)
        window = torch.cat((self._audio[at], audio.to(self._device)), 1)[:, self.block_samples :]
        states = self._encoder(window, self._window // STATE_SAMPLES)[:, -self._states :]
        embeddings: Tensor = self._adapter(states.unflatten(1, (-1, self._stack)).flatten(2))
        self._audio[at] = window  # last of all: if the encoder raises, the slots are as they were
        return embeddings


class _Wav2Vec2:
    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

        self._model: Any = (
            Wav2Vec2Model.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()
        )
        self._normalize = bool(
            Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True).do_normalize
        )
        self.width = int(self._model.config.hidden_size)

    def __call__(self, window: Tensor, states: int) -> Tensor:
        if self._normalize:
            mean, variance = window.mean(1, keepdim=True), window.var(1, correction=0, keepdim=True)
            window = (window - mean) / (variance + 1e-7).sqrt()
        output: Tensor = self._model(window.to(self._model.dtype)).last_hidden_state
        return output


class _Whisper:
    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from transformers import WhisperFeatureExtractor, WhisperModel

        model: Any = WhisperModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
        self._model: Any = model.get_encoder().to(device).eval()
        self._features: Any = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self.width = int(model.config.d_model)

    def __call__(self, window: Tensor, states: int) -> Tensor:
        audio = window[:, _WAV2VEC2_MORE:].cpu().numpy()
        features = self._features(list(audio), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        weight = self._model.conv1.weight
        output: Tensor = self._model(features.to(weight.device, weight.dtype)).last_hidden_state
        return output[:, :states]


_ENCODERS: Final[dict[str, Any]] = {"wav2vec2": _Wav2Vec2, "whisper": _Whisper}
