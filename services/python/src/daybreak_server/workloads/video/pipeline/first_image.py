"""The bytes of a first image to the RGB picture that the VAE encodes: upright, opaque, of the video's size.

In this order:

1. decode the first frame (a few files are animated);
2. turn it upright by its EXIF orientation;
3. bring every mode to RGB, with transparent parts on white;
4. scale it to cover the video's frame and crop what sticks out, the same on both sides, as Wan 2.2's own script does
   (``wan/textimage2video.py``). Stretching would deform faces and circles.

The result depends on the bytes alone. So whatever fails here will fail at every attempt, and is permanent.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.spec import image_file

BACKGROUND: Final = (255, 255, 255)
"""What shows through transparent parts."""

UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture upright, by its EXIF orientation; 1 is upright already."""


def read(data: bytes, width: int, height: int) -> Image.Image:
    """An RGB picture of exactly this size.

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
        # Pillow reports damaged files with SyntaxError, struct.error, zlib.error and others, not with OSError only.
        raise PermanentError(
            f"image cannot be read: the {header.format} file is damaged or cut off ({exc or type(exc).__name__}). "
            "Open it in an image editor, save it again and send that.",
            code="invalid_input",
        ) from exc


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # The picture itself was decoded: damaged metadata is no reason to refuse it.
        return image
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, *, bits: int = 8) -> Image.Image:
    """A picture of any mode as RGB, with transparent parts on :data:`BACKGROUND`.

    ``bits`` is the size of the file's samples: a PNG's transparent colour is given in those.
    """
    if image.mode.startswith("I"):
        image, bits = _from_16_bits(image), 8
    if image.mode == "F":
        image = image.convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    if image.mode == "RGB" and bits == 16 and isinstance(key, tuple):
        # Pillow keeps the high byte of each sample, but all of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.mode == "L" and bits < 8 and isinstance(key, int):
        # Pillow spreads the samples over 0..255, but not the transparent colour.
        image.info["transparency"] = key * 255 // (2**bits - 1)
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    page.alpha_composite(layer)
    return page.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey: Pillow's own conversion makes everything above 255 white."""
    samples = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((samples.clip(0, 65_535) >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)))
    return grey


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture scaled until it covers width x height, and cropped around its centre."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
