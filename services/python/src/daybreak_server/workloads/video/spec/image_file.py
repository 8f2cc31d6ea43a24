"""A first image as the API checks it: its base64, the format of the file, and the size in the header.

Standard library only, because the API does not install Pillow. A file that passes has a readable header; whether
the pixels can be decoded is found out by the group's first rank (``first_image.py``).
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
"""A few kilobytes of PNG can unpack to gigabytes, so larger pictures are refused by their header."""

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
"""How files begin that are often sent instead; only to name them in the error."""

START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers: those that carry the size, and those without a segment."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says."""

    format: Format
    width: int
    height: int
    """Of the stored pixels, before an EXIF orientation is applied."""
    bits: int = 8
    """Bits of a PNG's samples."""


def standard_base64(text: str) -> str:
    """The standard, padded form of a base64 string.

    Takes what clients make of it: line breaks and other whitespace, the URL-safe alphabet, missing padding, and a
    ``data:`` URL around it.

    :raises ValueError: for a URL that does not hold the file itself.
    """
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme and scheme[1].lower() != "data":
        raise ValueError(
            f"image must hold the file itself in base64, but is a {scheme[1].lower()}: URL, which is not fetched. "
            "Download the file and send its base64."
        )
    if scheme:
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise ValueError(
                "image is a data: URL that is not in base64; send data:image/png;base64,… or the base64 alone."
            )
        text = unquote(text)
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    # A length of 4n+1 is never base64: left as it is, it fails to decode.
    missing = {2: "==", 3: "="}.get(len(text) % 4, "")
    return text + missing


def decode(text: str) -> bytes:
    """The bytes of a file in base64. :raises ValueError: when it is not base64."""
    standard = standard_base64(text)
    try:
        return base64.b64decode(standard, validate=True)
    except ValueError as exc:
        raise ValueError(
            "image is not valid base64: encode the file's bytes, for example with `base64 FILE`."
        ) from exc


def header(data: bytes) -> Header:
    """Format and size of a PNG, JPEG or WebP file.

    :raises ValueError: when it is none of these, has no readable header, or is too large to unpack.
    """
    if not data:
        raise ValueError("image is empty. Leave it out, or send a PNG, JPEG or WebP file in base64.")
    found = _header(data)
    if found.width * found.height > MAX_PIXELS:
        raise ValueError(
            f"image is {found.width} x {found.height} pixels, more than the {MAX_PIXELS:,} that are unpacked. "
            "Scale it down to the video's size."
        )
    return found


def _header(data: bytes) -> Header:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind, found = "PNG", _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        kind, found = "JPEG", _jpeg(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        kind, found = "WebP", _webp(data)
    else:
        what = next((name for start, name in OTHER_FORMATS if re.match(start, data, re.DOTALL)), None)
        seen = f"but is {what}. {CONVERT}" if what else f"but does not begin like one. {CONVERT}"
        raise ValueError(f"image must be a PNG, JPEG or WebP file in base64, {seen}")
    if found is None or not (found.width and found.height):
        raise ValueError(
            f"image begins like a {kind} file, but its header does not say how large it is: the file is "
            "damaged or cut off. Open it in an image editor, save it again and send that."
        )
    return found


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
