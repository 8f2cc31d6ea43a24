"""What the tiny model knows: one flat shape that crosses a dark frame, and the sentence that describes the clip."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frames: TypeAlias = NDArray[np.float32]
"""An array [T, H, W, 3] of values in 0..1."""

SIZE: Final = 64
FRAMES: Final = 17
BACKGROUND: Final = 0.06

COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.2),
    "blue": (0.15, 0.3, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "white": (1.0, 1.0, 1.0),
}
SHAPES: Final = ("circle", "square", "triangle")
DIRECTIONS: Final[dict[str, tuple[int, int]]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Unit steps (x, y). As in images, y points downwards."""

CIRCLE_RADIUS: Final = 0.85
SQUARE_HALF_SIDE: Final = 1.05
TRIANGLE_APEX, TRIANGLE_BASE, TRIANGLE_HALF_WIDTH = 1.1, 0.9, 1.1
"""Sizes relative to :attr:`Path.radius`. For the triangle: how far the tip is above the centre, how far the base
line is below it, and half the length of the base.

A circle and a square of the same area differ so little that the model learned the two words last or never. With
different areas, it distinguishes them."""


@dataclass(frozen=True)
class Subject:
    """What a caption describes."""

    colour: str
    shape: str
    direction: str

    @property
    def caption(self) -> str:
        """The description of the clip, worded like the prompts in the documentation of the demo."""
        return f"a {self.colour} {self.shape} moving {self.direction}"

    @property
    def paraphrases(self) -> tuple[str, ...]:
        """Other wordings that a user may choose. The tokenizer ignores case, and blanks at both ends."""
        colour, shape, direction = self.colour, self.shape, self.direction
        return (
            f"{self.caption}.",
            f"{colour} {shape} moving {direction}",
            f"the {colour} {shape} moving {direction}",
            f"a {colour} {shape} moves {direction}",
            f"a {colour} {shape} going {direction}",
            f"{colour} {shape} {direction}",
        )


SUBJECTS: Final = tuple(Subject(*names) for names in itertools.product(COLOURS, SHAPES, DIRECTIONS))


@dataclass(frozen=True)
class Path:
    """The size of the shape in one clip, its speed per frame, and where its centre starts, all in pixels."""

    radius: float
    speed: float
    start: tuple[float, float]


def random_path(direction: str, rng: np.random.Generator) -> Path:
    """A path that keeps the whole shape in the frame from the first picture to the last."""
    radius = rng.uniform(0.165, 0.19) * SIZE
    speed = rng.uniform(1.5, 1.75) * SIZE / 64
    travel = speed * (FRAMES - 1)
    margin = TRIANGLE_APEX * radius + 0.5
    low, high = margin, SIZE - 1 - margin

    def start(step: int) -> float:
        return float(rng.uniform(low + travel * (step < 0), high - travel * (step > 0)))

    step_x, step_y = DIRECTIONS[direction]
    return Path(radius, speed, (start(step_x), start(step_y)))


def coverage(shape: str, x: NDArray[Any], y: NDArray[Any], radius: float | NDArray[Any]) -> Frames:
    """How much of each pixel the shape covers, as an array [T, SIZE, SIZE] of values in 0..1.

    ``x`` and ``y`` are arrays [T]: the coordinates of the shape's centre in each frame. The result is calculated from
    the signed distance to the outline, so edges have one pixel of antialiasing.
    """
    pixels = np.arange(SIZE, dtype=np.float32)
    across = pixels[None, None, :] - x.astype(np.float32)[:, None, None]
    down = pixels[None, :, None] - y.astype(np.float32)[:, None, None]
    r = np.broadcast_to(np.float32(radius), x.shape)[:, None, None]
    if shape == "circle":
        inside = np.float32(CIRCLE_RADIUS) * r - np.hypot(across, down)
    elif shape == "square":
        inside = SQUARE_HALF_SIDE * r - np.maximum(np.abs(across), np.abs(down))
    elif shape == "triangle":
        slope = TRIANGLE_HALF_WIDTH / (TRIANGLE_APEX + TRIANGLE_BASE)
        flank = ((down + TRIANGLE_APEX * r) * slope - np.abs(across)) / np.hypot(1.0, slope)
        inside = np.minimum(TRIANGLE_BASE * r - down, flank)
    else:
        raise ValueError(f"no such shape: {shape!r}")
    cover: Frames = np.clip(inside + np.float32(0.5), 0.0, 1.0).astype(np.float32)
    return cover


def render(subject: Subject, path: Path, frames: int = FRAMES) -> Frames:
    """The clip of a subject on its path, as an array [frames, SIZE, SIZE, 3] of values in 0..1."""
    time = np.arange(frames) * path.speed
    step_x, step_y = DIRECTIONS[subject.direction]
    cover = coverage(subject.shape, path.start[0] + step_x * time, path.start[1] + step_y * time, path.radius)
    colour = np.asarray(COLOURS[subject.colour], np.float32)
    dark = np.float32(BACKGROUND)
    return (dark + cover[..., None] * (colour - dark)).astype(np.float32)


def random_clip(subject: Subject, rng: np.random.Generator) -> Frames:
    """A clip of the subject on a random path."""
    return render(subject, random_path(subject.direction, rng))
