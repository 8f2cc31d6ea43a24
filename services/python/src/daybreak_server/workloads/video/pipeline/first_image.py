"""Turns the file of a first image into the picture that the VAE encodes: RGB, upright, opaque, of the video's size.

:func:`read` does this in four steps:

1. It decodes the first frame (some files are animated).
2. It turns the picture upright, as the EXIF orientation says.
3. It converts any mode to RGB, and puts transparent parts on white.
4. It scales the picture until it covers the video's frame, and crops equal parts from opposite sides. Wan
   2.2's own script does the same (``wan/textimage2video.py``). Stretching would deform faces and circles.

The result depends only on the bytes and the video's size, so an error here would occur at every attempt. Therefore
errors are permanent, except when memory was full.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.spec import image_file

BACKGROUND: Final = (255, 255, 255)
"""The colour behind transparent parts."""

UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transposition that turns the picture upright. Orientation 1 needs none."""


def read(data: bytes, width: int, height: int) -> Image.Image:
    """Decode a file to an RGB picture of exactly this size.

    :raises PermanentError: when the file cannot be decoded.
    """
    try:
        header = image_file.header(data)
    except ValueError as exc:
        raise PermanentError(str(exc), code="invalid_input") from exc
    try:
        with Image.open(io.BytesIO(data), formats=(header.format,)) as image:
            image.load()
            picture = to_rgb(_upright(image), bits=header.bits)
            return cover(picture, width, height)
    except MemoryError:
        raise
    except Exception as exc:
        # For damaged files, Pillow raises not only OSError but also SyntaxError, struct.error, zlib.error and others.
        raise PermanentError(
            f"image cannot be read: the {header.format} file is damaged or cut off ({exc or type(exc).__name__}). "
            "Open it in an image editor, save it again and send that.",
            code="invalid_input",
        ) from exc


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # The picture itself has been decoded, so damaged metadata is no reason to refuse it.
        return image
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, *, bits: int = 8) -> Image.Image:
    """Convert a picture of any mode to RGB, with transparent parts on :data:`BACKGROUND`.

    :param bits: The bits of a sample in the file. A PNG gives its transparent colour with the same number of bits.
    """
    if image.mode.startswith("I"):
        image, bits = _from_16_bits(image), 8
    if image.mode == "F":
        image = image.convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    if image.mode == "RGB" and bits == 16 and isinstance(key, tuple):
        # Pillow reduces each sample to its high byte, but leaves the transparent colour at 16 bits.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.mode == "L" and bits < 8 and isinstance(key, int):
        # Pillow scales the samples to 0..255, but not the transparent colour.
        image.info["transparency"] = key * 255 // (2**bits - 1)
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    page.alpha_composite(layer)
    return page.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8-bit grey. Pillow's own conversion would make every value above 255 white."""
    samples = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((samples.clip(0, 65_535) >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return grey


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale the picture until it covers width x height, and crop it around its centre."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
