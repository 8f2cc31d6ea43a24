"""Tests of first images: the model gets them upright, opaque, unstretched and with their true brightness."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from video_images import header_only, png, png_chunk

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.pipeline import first_image

RED, GREEN, BLUE, GOLD, WHITE = (230, 20, 20), (20, 200, 40), (20, 40, 220), (240, 200, 20), (255, 255, 255)
FORMATS = ["JPEG", "PNG", "WEBP"]

STORED: dict[int, Any] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation → the transposition with which a camera stores an upright picture."""


def quarters(width: int = 64, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Make a picture of four quarters: red and green above blue and gold."""
    image = Image.new("RGB", (width, height))
    for place, colour in enumerate((RED, GREEN, BLUE, GOLD)):
        corner = (place % 2 * width // 2, place // 2 * height // 2)
        image.paste(colour, (*corner, corner[0] + width // 2, corner[1] + height // 2))
    return image.convert(mode)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(data: bytes, width: int = 64, height: int = 32) -> list[tuple[int, ...]]:
    """Read a file as a first image, and return the colours of its four quarters."""
    picture = first_image.read(data, width, height)
    assert (picture.mode, picture.size) == ("RGB", (width, height))
    pixels = np.asarray(picture)
    return [
        tuple(int(part) for part in pixels[y * height // 4, x * width // 4]) for y in (1, 3) for x in (1, 3)
    ]


def close(actual: list[tuple[int, ...]], expected: list[tuple[int, ...]], within: int = 12) -> bool:
    return bool(np.abs(np.subtract(actual, expected)).max() <= within)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_with_any_exif_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    """All eight EXIF orientations work in each format that has EXIF data."""
    image = quarters()
    if STORED[orientation] is not None:
        image = image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = file(image, kind, exif=exif, quality=95)
    assert close(colours(data), [RED, GREEN, BLUE, GOLD])


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_invalid_exif_orientation_is_ignored(orientation: int) -> None:
    """Some programs write 0 or a meaningless number as the orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert close(colours(file(quarters(), exif=exif)), [RED, GREEN, BLUE, GOLD])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_picture_with_damaged_exif_data_is_accepted() -> None:
    """The picture can still be decoded. Only its orientation is lost."""
    for exif in (b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12", b"Exif\0\0not a TIFF at all"):
        data = file(quarters(), "JPEG", exif=exif, quality=95)
        assert close(colours(data), [RED, GREEN, BLUE, GOLD])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_every_colour_mode_gives_the_same_colours(mode: str) -> None:
    """RGB, RGB with alpha, a palette and CMYK give the same picture."""
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = quarters().quantize(8) if mode == "P" else quarters(mode=mode)
    assert close(colours(file(image, kind, quality=95)), [RED, GREEN, BLUE, GOLD], within=20)


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    """Half of 65,535 becomes a middle grey, not white."""
    values = (0, 0x4000, 0x8000, 0xFFFF)
    data = png(4, [struct.pack(">4H", *values)], bits=16, colour=0)
    pixels = np.asarray(first_image.read(data, 4, 1))[0]
    assert pixels.tolist() == [[grey] * 3 for grey in (0, 64, 128, 255)]


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("1", 1, 255),
        ("L", 90, 90),
        ("I;16", 0x5A00, 90),
        ("I;16B", 0x5A00, 90),
        ("I", 0x5A00, 90),
        ("F", 90.0, 90),
    ],
)
def test_every_grey_mode_keeps_its_brightness(mode: str, value: float, grey: int) -> None:
    """Each value becomes the 8-bit grey that it stands for in its mode."""
    if mode.startswith("I;16"):
        image = Image.frombytes(
            mode, (2, 1), struct.pack(">2H" if mode.endswith("B") else "<2H", value, value)
        )
    else:
        image = Image.new(mode, (2, 1), value)
    assert np.asarray(first_image.to_rgb(image)).tolist() == [[[grey] * 3] * 2]


KEYED = {
    "grey, 1 bit": (png(8, [b"\x0f"], bits=1, colour=0, chunks=[(b"tRNS", b"\0\0")]), 0),
    "grey, 2 bits": (png(4, [b"\x5f"], bits=2, colour=0, chunks=[(b"tRNS", b"\0\1")]), 255),
    "grey, 8 bits": (png(4, [b"\7\7\x50\x50"], bits=8, colour=0, chunks=[(b"tRNS", b"\0\7")]), 0x50),
    "grey, 16 bits": (
        png(4, [struct.pack(">4H", 7, 7, 0x5000, 0x5000)], bits=16, colour=0, chunks=[(b"tRNS", b"\0\7")]), 0x50,
    ),
    "RGB, 8 bits": (
        png(2, [bytes([1, 2, 3, 80, 80, 80])], bits=8, colour=2, chunks=[(b"tRNS", b"\0\1\0\2\0\3")]), 80,
    ),
    "RGB, 16 bits": (
        png(
            2, [struct.pack(">6H", 0x1200, 0x3400, 0x5600, 0x5000, 0x5000, 0x5000)], bits=16, colour=2,
            chunks=[(b"tRNS", b"\x12\0\x34\0\x56\0")],
        ), 0x50,
    ),
    "palette": (
        png(
            2, [b"\0\1"], bits=8, colour=3, chunks=[(b"PLTE", b"\1\2\3\x50\x50\x50"), (b"tRNS", b"\0\xff")],
        ), 0x50,
    ),
    "grey with alpha, 16 bits": (
        png(2, [struct.pack(">4H", 0x1200, 0, 0x5000, 0xFFFF)], bits=16, colour=4), 0x50,
    ),
    "RGB with alpha": (png(2, [bytes([9, 9, 9, 0, 80, 80, 80, 255])], bits=8, colour=6), 80),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYED)
def test_transparent_parts_become_white(name: str) -> None:
    """The left half of each file is transparent, in one of the ways that PNG has. The right half is opaque."""
    data, grey = KEYED[name]
    width = struct.unpack_from(">I", data, 16)[0]
    pixels = np.asarray(first_image.read(data, width, 1))[0]
    # In the file of 1 bit, black is the transparent colour and the rest is white, so everything becomes white.
    right = 255 if name == "grey, 1 bit" else grey
    expected = [[255] * 3] * (width // 2) + [[right] * 3] * (width // 2)
    assert pixels.tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_half_transparent_parts_are_blended_with_white(kind: str) -> None:
    """The picture keeps its transparency when it is turned upright."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = file(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert abs(int(np.asarray(first_image.read(data, 16, 16)).mean()) - 127) <= 2


def test_a_transparent_colour_stays_transparent_after_the_picture_is_turned() -> None:
    """A PNG may mark one colour as transparent. Pixels of this colour stay transparent at their new place."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    data = png(
        2, [bytes([7, 80])], bits=8, colour=0,
        chunks=[(b"tRNS", b"\0\7"), (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))],
    )  # fmt: skip
    assert np.asarray(first_image.read(data, 2, 1))[0].tolist() == [[80] * 3, [255] * 3]


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_animation_gives_its_first_frame(kind: str, options: dict[str, Any]) -> None:
    """The later frames of an animated file are ignored."""
    others = [Image.new("RGB", (64, 32), BLUE)] * 3
    data = file(quarters(), kind, save_all=True, append_images=others, **options)
    assert colours(data) == [RED, GREEN, BLUE, GOLD]


@pytest.mark.parametrize(
    ("stored", "video"), [((96, 32), (32, 32)), ((32, 96), (64, 64)), ((300, 100), (40, 40))]
)
def test_a_picture_of_another_shape_is_cropped_around_its_centre_and_not_stretched(
    stored: tuple[int, int], video: tuple[int, int]
) -> None:
    """Of three equal squares side by side, only the middle one remains."""
    image = Image.new("RGB", stored, RED)
    side = min(stored)
    corner = ((stored[0] - side) // 2, (stored[1] - side) // 2)
    image.paste(GREEN, (*corner, corner[0] + side, corner[1] + side))
    pixels = np.asarray(first_image.read(file(image), *video))
    # The edge is left out, because there the filter mixes in a little red.
    inner = pixels[5:-5, 5:-5].astype(int)
    assert np.abs(inner - GREEN).max() <= 4


def test_a_picture_of_the_videos_size_keeps_every_pixel() -> None:
    """A picture that already has the right size is not resampled."""
    pixels = np.random.default_rng(5).integers(0, 256, (32, 48, 3), np.uint8)
    picture = first_image.read(file(Image.fromarray(pixels)), 48, 32)
    assert (np.asarray(picture) == pixels).all()


def test_a_very_narrow_picture_is_cropped_before_it_is_scaled() -> None:
    """If this picture of 1 x 30,000 pixels were scaled first, the scaled picture would have about 50 billion pixels."""
    data = file(Image.new("RGB", (1, 30_000), GREEN))
    assert close(colours(data, 1280, 704), [GREEN] * 4, within=1)


@functools.cache
def broken() -> dict[str, bytes]:
    """Make files that cannot be read, most of them with a valid header."""
    whole = {kind: file(quarters(), kind) for kind in FORMATS}
    checksum = bytearray(whole["PNG"])
    checksum[29] ^= 0xFF
    files = {f"{kind} cut off": data[: len(data) * 2 // 3] for kind, data in whole.items()}
    files |= {
        "a wrong checksum": bytes(checksum),
        "no pixels": header_only("PNG", 8, 8) + png_chunk(b"IEND", b""),
        "a header alone": header_only("JPEG", 8, 8),
        "an unknown colour type": png(2, [b"\0\0"], bits=8, colour=5),
        "a text that unpacks to 100 MB": png(
            1, [b"\0\0\0"], bits=8, colour=2,
            chunks=[(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 100_000_000, 1))],
        ),
        "too large to unpack": header_only("PNG", 60_000, 60_000),
        "a sound": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 30,
        "nothing": b"",
    }  # fmt: skip
    return files


@pytest.mark.parametrize("name", broken())
def test_a_broken_file_fails_the_task_permanently(name: str) -> None:
    """The next attempt would read the same bytes, so the error is permanent. Its message says what to do."""
    with pytest.raises(
        PermanentError, match=r"image .*(save it again|Scale it down|Convert it|Leave it out)"
    ) as caught:
        first_image.read(broken()[name], 32, 32)
    assert caught.value.code == "invalid_input"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_read_or_refused_permanently(kind: str) -> None:
    """A truncated file, or one with overwritten bytes, is either decoded or refused permanently."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    whole, rng = file(quarters(), kind, exif=exif), random.Random(13)
    damaged = [whole[:length] for length in range(0, len(whole), 3)]
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        damaged.append(bytes(data))
    codes = set()
    for data in damaged:
        try:
            assert first_image.read(data, 16, 16).size == (16, 16)
        except PermanentError as exc:
            codes.add(exc.code)
    assert codes == {"invalid_input"}
