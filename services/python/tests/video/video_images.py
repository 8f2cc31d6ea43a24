"""Builds image files byte by byte: files that Pillow cannot write, and files that consist of a header only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Build a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, rows: Iterable[bytes], *, bits: int, colour: int, chunks: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """Build a PNG from packed rows. ``colour``: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha."""
    lines = [b"\0" + row for row in rows]
    head = struct.pack(">IIBBBBB", width, len(lines), bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    return SIGNATURE + b"".join(png_chunk(name, data) for name, data in parts)


def header_only(kind: str, width: int, height: int) -> bytes:
    """Build a file that ends after its header, so it has the size of the picture but no pixels."""
    if kind == "PNG":
        return SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    if kind == "JPEG":
        # First a comment, whose text contains a marker. Then fill bytes and the header of a progressive frame.
        comment = b"\xff\xfe\0\x08\xff\xc0\0\0\0\1"
        frame = b"\xff\xff\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width) + b"\3\1\x22\0\2\x11\1"
        return b"\xff\xd8" + comment + frame
    if kind == "WEBP":
        body = b"VP8 \x10\0\0\0" + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0" * 6
    elif kind == "WEBP lossless":
        body = b"VP8L\x10\0\0\0\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + b"\0" * 12
    else:
        sides = (side.to_bytes(3, "little") for side in (width - 1, height - 1))
        body = b"VP8X\x0a\0\0\0\x02\0\0\0" + b"".join(sides)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
