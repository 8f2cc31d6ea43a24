"""The API's checks of the image with which a video begins: its base64, its format, and the size in its header.

The API does not install Pillow, so this module uses the standard library only. A file that passes has a readable
header. The leader of a group decodes its pixels later, and fails the task if it cannot (``first_image.py``).
"""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

Format = Literal["PNG", "JPEG", "WEBP"]

MAX_PIXELS: Final = 4096 * 4096
"""A picture with more pixels in its header is refused, because half a megabyte of PNG can decode to gigabytes."""

CONVERT: Final = "Convert it to PNG, JPEG or WebP."

OTHER_FORMATS: Final = (
    (rb"GIF8", "a GIF"),
    (rb"BM", "a BMP"),
    (rb"II\*\0|MM\0\*", "a TIFF"),
    (rb"....ftyp(heic|heix|mif1|msf1)", "a HEIC picture"),
    (rb"....ftypavi[fs]", "an AVIF picture"),
    (rb"....ftyp|\x1aE\xdf\xa3", "a video"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"%PDF", "a PDF"),
    (rb"\s*<(\?xml|svg|!)", "an XML, SVG or HTML document"),
)
"""The first bytes of other formats that people often send, so that the error can name the format."""

START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers. The segment of a ``START_OF_FRAME`` marker contains the size. A ``NO_LENGTH`` marker has no segment."""


@dataclass(frozen=True, slots=True)
class Header:
    """Format and size of a picture, from its header."""

    format: Format
    width: int
    height: int
    """Width and height are those of the stored pixels, before the EXIF orientation is applied."""
    bits: int = 8
    """Bits of a sample in a PNG."""


def standard_base64(text: str) -> str:
    """The standard, padded form of a base64 string.

    Accepts the variants that clients send: line breaks and other whitespace, the URL-safe alphabet, missing padding,
    and a ``data:`` URL.

    :raises ValueError: for a URL that does not contain the file itself in base64.
    """
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme and scheme[1].lower() != "data":
        raise ValueError(
            f"image must be the file itself in base64, but is a {scheme[1].lower()}: URL, which is not fetched. "
            "Download the file and send its base64."
        )
    if scheme:
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise ValueError(
                "image is a data: URL without base64; send data:image/png;base64,… or the base64 alone."
            )
        text = unquote(text)
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    # A text of length 4n+1 is never valid base64. It gets no padding here, so it fails to decode, as it should.
    missing = {2: "==", 3: "="}.get(len(text) % 4, "")
    return text + missing


def decode(text: str) -> bytes:
    """Decode a file in base64. :raises ValueError: when the text is not base64."""
    standard = standard_base64(text)
    try:
        return base64.b64decode(standard, validate=True)
    except ValueError as exc:
        raise ValueError(
            "image is not valid base64: encode the file's bytes, for example with `base64 FILE`."
        ) from exc


def header(data: bytes) -> Header:
    """Format and size of a PNG, JPEG or WebP file.

    :raises ValueError: when the file is empty, has another format or no readable header, or is too large to unpack.
    """
    if not data:
        raise ValueError("image is empty. Leave it out, or send a PNG, JPEG or WebP file in base64.")
    picture = _header(data)
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"image has {picture.width} x {picture.height} pixels, more than the limit of {MAX_PIXELS:,}. "
            "Scale it down to the video's size."
        )
    return picture


def _header(data: bytes) -> Header:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        format_name, picture = "PNG", _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        format_name, picture = "JPEG", _jpeg(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        format_name, picture = "WebP", _webp(data)
    else:
        what = next((name for start, name in OTHER_FORMATS if re.match(start, data, re.DOTALL)), None)
        problem = f"but is {what}. {CONVERT}" if what else f"but does not start like one. {CONVERT}"
        raise ValueError(f"image must be a PNG, JPEG or WebP file in base64, {problem}")
    if picture is None or not (picture.width and picture.height):
        raise ValueError(
            f"image starts like a {format_name} file, but its header has no size: the file is damaged or truncated. "
            "Open it in an image editor, save it again and send that."
        )
    return picture


def _png(data: bytes) -> Header | None:
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, bits=data[24])


def _jpeg(data: bytes) -> Header | None:
    """Walk the segments up to the one that starts the frame."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Header("JPEG", width, height)
        if marker in (0xFF, 0x00):
            at += 1
        elif marker in NO_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp(data: bytes) -> Header | None:
    if len(data) < 30:
        return None
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L" and data[20] == 0x2F:
        packed = int.from_bytes(data[21:25], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return Header("WEBP", width, height)
