"""Reads colour, shape and direction from the pixels of a video, without a model.

The subject is the part that differs from the dark background. Its colour is the nearest colour of the palette. Its
direction is the direction in which its centre moves. Its shape is found by moment matching: each shape is drawn with
the subject's area and centre, and the shape with the best mean overlap over all frames is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from verification.tiny_wan.shapes import (
    BACKGROUND,
    CIRCLE_RADIUS,
    COLOURS,
    SHAPES,
    SQUARE_HALF_SIDE,
    TRIANGLE_APEX,
    TRIANGLE_BASE,
    TRIANGLE_HALF_WIDTH,
    Frames,
    coverage,
)

FOREGROUND: Final = 0.25
"""A pixel belongs to the subject if it differs from the background by more than this in any channel."""
LEAST_PIXELS: Final = 40
LEAST_FRAMES: Final = 8
LEAST_TRAVEL: Final = 8.0
"""If the centre moves fewer pixels than this from the first 3 to the last 3 frames, the subject has no direction."""
LEAST_OVERLAP: Final = 0.6
"""If no shape has at least this intersection over union with the subject, the subject's shape is not clear."""

UNIT_AREA: Final = {
    "circle": np.pi * CIRCLE_RADIUS**2,
    "square": (2 * SQUARE_HALF_SIDE) ** 2,
    "triangle": TRIANGLE_HALF_WIDTH * (TRIANGLE_APEX + TRIANGLE_BASE),
}
CENTROID: Final = {"circle": 0.0, "square": 0.0, "triangle": (2 * TRIANGLE_BASE - TRIANGLE_APEX) / 3}
"""How far below a shape's centre its centroid lies, in radii."""


@dataclass(frozen=True)
class Reading:
    """The traits of the subject of a video. A trait that is not clear is None."""

    colour: str | None
    shape: str | None
    direction: str | None
    overlap: dict[str, float]
    travel: tuple[float, float]


NOTHING: Final = Reading(None, None, None, {}, (0.0, 0.0))


def read(video: NDArray[Any]) -> Reading:
    """Read the traits from frames [T, H, W, 3], float 0..1 or uint8, as large as those of the tiny model."""
    frames = video.astype(np.float32) / (255 if video.dtype == np.uint8 else 1)
    seen = np.abs(frames - BACKGROUND).max(-1) > FOREGROUND
    visible = seen.sum((1, 2)) >= LEAST_PIXELS
    if visible.sum() < LEAST_FRAMES:
        return NOTHING
    frames, seen = frames[visible], seen[visible]
    colour = nearest_colour(np.median(frames[seen], 0))
    cover = soft_cover(frames, colour) * seen
    x, y = centres(cover)
    travel = (float(x[-3:].mean() - x[:3].mean()), float(y[-3:].mean() - y[:3].mean()))
    overlap = {shape: overlap_with(shape, cover, x, y) for shape in SHAPES}
    best = max(overlap, key=lambda shape: overlap[shape])
    return Reading(
        colour, best if overlap[best] >= LEAST_OVERLAP else None, direction_of(travel), overlap, travel
    )


def nearest_colour(rgb: NDArray[np.float32]) -> str:
    """The palette's colour closest in RGB."""
    return min(COLOURS, key=lambda name: float(np.abs(np.asarray(COLOURS[name]) - rgb).sum()))


def direction_of(travel: tuple[float, float]) -> str | None:
    """The direction of the longer of the two components x and y; None if both are shorter than ``LEAST_TRAVEL``."""
    x, y = travel
    if max(abs(x), abs(y)) < LEAST_TRAVEL:
        return None
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def soft_cover(frames: Frames, colour: str) -> Frames:
    """How close each pixel is to the colour, [T, H, W]: from 0 (the background) to 1 (the colour)."""
    ray = np.asarray(COLOURS[colour], np.float32) - np.float32(BACKGROUND)
    return np.clip((frames - np.float32(BACKGROUND)) @ ray / (ray @ ray), 0, 1).astype(np.float32)


def centres(cover: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centroids of all frames: their x values, and their y values."""
    mass = cover.sum((1, 2)).astype(np.float64)
    x = (cover.sum(1) * np.arange(cover.shape[2])).sum(1) / mass
    y = (cover.sum(2) * np.arange(cover.shape[1])).sum(1) / mass
    return x, y


def overlap_with(shape: str, cover: Frames, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Mean intersection over union with the ideal shape of the same area and centroid."""
    radius = np.sqrt(cover.sum((1, 2)).astype(np.float64) / UNIT_AREA[shape])
    ideal = coverage(shape, x, y - CENTROID[shape] * radius, radius)
    return float((np.minimum(cover, ideal).sum((1, 2)) / np.maximum(cover, ideal).sum((1, 2))).mean())
