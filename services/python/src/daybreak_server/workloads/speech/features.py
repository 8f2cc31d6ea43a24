"""Causal log-mel features of streaming audio: 80 bands, and a window of 25 ms every 10 ms.

The window of a frame ends where the frame ends, so the features of a block need the last 240 samples before the
block, and no sample after the block.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

SAMPLE_RATE: Final = 16_000
HOP: Final = 160
WINDOW: Final = 400
OVERLAP: Final = WINDOW - HOP
"""The features of a block need this many samples before the block."""
FFT: Final = 512
BANDS: Final = 80
FLOOR: Final = 1e-6
MEAN: Final = -6.0
SCALE: Final = 4.0


def _filters() -> Tensor:
    """Triangular filters, evenly spaced in mel between 40 Hz and 7.8 kHz: [bins, bands]."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (40, 7800))
    edges = 700 * (10 ** (torch.linspace(low, high, BANDS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


_FILTERS = _filters()
_HANN = torch.hann_window(WINDOW, periodic=True)


def log_mel(samples: Tensor) -> Tensor:
    """The features as [..., n / 160, bands]. ``samples`` is [..., 240 + n]: 240 samples, and then the block."""
    frames = samples.unfold(-1, WINDOW, HOP)
    power = torch.fft.rfft(frames * _HANN.to(samples.device), FFT).abs().square()
    mel: Tensor = ((power @ _FILTERS.to(samples.device) + FLOOR).log() - MEAN) / SCALE
    return mel
