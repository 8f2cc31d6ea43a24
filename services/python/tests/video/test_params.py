"""Tests of the input of a video task: defaults, limits, images, and messages that say what to do."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError
from video_images import header_only

from daybreak_server.workloads.video.spec.params import SPEC, VideoParams, cost

A14B = {"model": "/not/on/this/machine", "family": "t2v-a14b"}
TI2V = {"model": "/not/on/this/machine", "family": "ti2v-5b"}
PNG = base64.b64encode(header_only("PNG", 320, 200)).decode()


def errors(fields: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        SPEC.validate({"prompt": "a", **fields}, options)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("fields", "options", "field", "words"),
    [
        ({"prompt": ""}, {}, "prompt", "at least 1 character"),
        ({"prompt": "   "}, {}, "prompt", "at least 1 character"),
        ({"prompt": "a" * 2001}, {}, "prompt", "at most 2000 characters"),
        ({"prompt": 7}, {}, "prompt", "valid string"),
        ({"frames": 16}, {}, "frames", "frames must be 4n+1; 16 is not. Try 17."),
        ({"frames": 18}, {}, "frames", "Try 17."),
        ({"frames": 0}, {}, "frames", "greater than or equal to 1"),
        ({"frames": 100_001}, {}, "frames", "at most 121"),
        ({"frames": "17"}, {}, "frames", "valid integer"),
        ({"frames": 17.0}, {}, "frames", "valid integer"),
        ({"frames": True}, {}, "frames", "valid integer"),
        ({"size": "100x64"}, {}, "size", "multiples of 16, not 100x64. Try 96x64."),
        ({"size": "1x1"}, {}, "size", "Try 16x16."),
        ({"size": "64*60"}, {}, "size", "not 64x60. Try 64x64."),
        (
            {"size": "1２x64"},
            {},
            "size",
            "size must be WIDTHxHEIGHT in pixels, for example 1280x720, not '1２x64'.",
        ),
        ({"size": "64x64\n"}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": "64 by 64"}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": "64"}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": "16:9"}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": ""}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": "064x64"}, {}, "size", "must be WIDTHxHEIGHT"),
        ({"size": 64}, {}, "size", "valid string"),
        ({"size": "1024x64"}, {}, "size", "at most 512 pixels"),
        ({"size": "1280x720"}, TI2V, "size", "multiples of 32, not 1280x720. Try 1280x736."),
        ({"steps": 0}, {}, "steps", "greater than or equal to 1"),
        ({"steps": 101}, A14B, "steps", "at most 100"),
        ({"guidance": -1}, {}, "guidance", "greater than or equal to 0"),
        ({"guidance": float("nan")}, {}, "guidance", "finite number"),
        ({"shift": float("inf")}, {}, "shift", "finite number"),
        ({"guidance_2": 3.0}, {}, "guidance_2", "two experts"),
        ({"shift": 0}, {}, "shift", "greater than 0"),
        ({"seed": -1}, {}, "seed", "greater than or equal to 0"),
        ({"seed": 2**32}, {}, "seed", "less than or equal to"),
        ({"fps": 0}, {}, "fps", "greater than or equal to 1"),
        ({"image": PNG}, {}, "image", "takes no first image"),
        ({"image": "not base64!"}, TI2V, "image", "not valid base64"),
        ({"image": ""}, TI2V, "image", "image is empty"),
        ({"image": "é" * 8}, TI2V, "image", "not valid base64"),
        ({"image": "QUJD=QUJD"}, TI2V, "image", "not valid base64"),
        ({"image": "https://example.org/cat.png"}, TI2V, "image", "https: URL, which is not fetched"),
        ({"image": "data:image/svg+xml,%3Csvg/%3E"}, TI2V, "image", "data: URL without base64"),
        ({"image": "data:image/png;base64"}, TI2V, "image", "data: URL without base64"),
        ({"image": "a" * 12_289}, TI2V, "image", "at most 12288"),
        ({"colour": "red"}, {}, "colour", "not permitted"),
        ({"frames": 97}, {**A14B, "limits": {"max_tokens": 80_000}}, "frames", "90,000 tokens"),
        ({}, {**A14B, "gpu_memory_gib": 64}, "frames", "64 GiB of GPU memory"),
    ],
)
def test_an_invalid_field_is_refused_with_its_name_and_the_allowed_values(
    fields: dict[str, Any], options: dict[str, Any], field: str, words: str
) -> None:
    """The error names exactly the wrong field, and its message says which values are allowed."""
    problems = errors(fields, options)
    assert [name for name, _ in problems] == [field]
    assert words in problems[0][1]


@pytest.mark.parametrize("written", ["1280x704", "1280X704", "1280*704", "1280×704"])
def test_a_size_may_be_written_with_any_common_multiplication_sign(written: str) -> None:
    """Wan's scripts write 1280*704. The task stores 1280x704. The JSON schema accepts the same forms as the server."""
    params = SPEC.validate({"prompt": "a", "size": written}, TI2V)
    assert (params.size, params.width, params.height) == ("1280x704", 1280, 704)
    pattern = VideoParams.model_json_schema()["properties"]["size"]["pattern"]
    assert re.fullmatch(pattern, written)


# The base64 of these bytes has "+", "/" and padding, in which the variants below differ.
FILE = header_only("PNG", 320, 200) + b"\xfb\xff\xfe\x00"
STANDARD = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "written",
    [
        STANDARD,
        base64.encodebytes(FILE).decode(),
        "\r\n".join(textwrap.wrap(STANDARD, 20)) + " \t",
        base64.urlsafe_b64encode(FILE).decode(),
        base64.urlsafe_b64encode(FILE).decode().rstrip("="),
        STANDARD.rstrip("="),
        f"data:image/png;base64,{STANDARD}",
        f"DATA:image/png;charset=utf-8;BASE64,\n{STANDARD}",
        f"data:image/png;base64,{quote(STANDARD, safe='')}",
    ],
)
def test_every_common_variant_of_base64_is_accepted(written: str) -> None:
    """Line breaks, the URL-safe alphabet, missing padding and data: URLs are accepted. All become standard base64."""
    assert {"+", "/", "="} <= set(STANDARD)
    assert SPEC.validate({"prompt": "a", "image": written}, TI2V).image == STANDARD


def test_line_breaks_do_not_count_towards_the_length_of_an_image() -> None:
    """The longest allowed file may be sent with the line breaks that the command ``base64`` prints."""
    longest = header_only("PNG", 320, 200).ljust(12_288 // 4 * 3, b"\0")
    params = SPEC.validate({"prompt": "a", "image": base64.encodebytes(longest).decode()}, TI2V)
    assert params.image == base64.b64encode(longest).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "WEBP lossless", "WEBP animated"])
def test_the_size_in_an_image_header_is_checked_at_submit(kind: str) -> None:
    """The API reads the size in each format without Pillow, and refuses a picture that is too large to decode."""
    small, large = header_only(kind, 300, 200), header_only(kind, 16_000, 12_000)
    assert SPEC.validate({"prompt": "a", "image": base64.b64encode(small).decode()}, TI2V).image
    (problem,) = errors({"image": base64.b64encode(large).decode()}, TI2V)
    assert problem[0] == "image"
    assert "16000 x 12000 pixels" in problem[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a\1\0\1\0\0\0\0", "is a GIF. Convert it to PNG, JPEG or WebP."),
        (b"BM" + b"\0" * 30, "is a BMP"),
        (b"II*\0" + b"\0" * 30, "is a TIFF"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 30, "is a HEIC picture"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 30, "is an AVIF picture"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 30, "is a video"),
        (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 30, "does not start like one"),
        (b"<svg xmlns=''/>", "is an XML, SVG or HTML document"),
        (b"%PDF-1.7", "is a PDF"),
        (b"nothing known", "does not start like one"),
        (b"\x89PNG\r\n\x1a\n but no more", "starts like a PNG file, but its header"),
        (header_only("PNG", 0, 8), "starts like a PNG file, but its header"),
        (header_only("PNG", 8, 8)[:30], "starts like a PNG file, but its header"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "starts like a JPEG file, but its header"),
        (header_only("JPEG", 8, 8)[:-12], "starts like a JPEG file, but its header"),
        (header_only("WEBP", 8, 8)[:24], "starts like a WebP file, but its header"),
    ],
)
def test_a_file_in_another_format_is_refused_at_submit(data: bytes, words: str) -> None:
    """The message names the file's format, or says that the file is damaged or has no known format."""
    (problem,) = errors({"image": base64.b64encode(data).decode()}, TI2V)
    assert problem[0] == "image"
    assert words in problem[1]


@pytest.mark.parametrize(
    ("options", "size", "frames", "steps", "guidance", "guidance_2"),
    [
        ({}, "64x64", 17, 20, 3.0, None),
        (A14B, "1280x720", 81, 40, 4.0, 3.0),
        (TI2V, "1280x704", 121, 50, 5.0, None),
        ({**A14B, "gpu_memory_gib": 80}, "1280x720", 81, 40, 4.0, 3.0),
    ],
)
def test_defaults_come_from_the_model(
    options: dict[str, Any], size: str, frames: int, steps: int, guidance: float, guidance_2: float | None
) -> None:
    """A prompt alone is a valid input. The other fields get the model's published settings, which its limits allow."""
    params = SPEC.validate({"prompt": "a cat"}, options)
    assert (params.size, params.frames, params.steps) == (size, frames, steps)
    assert (params.guidance, params.guidance_2) == (guidance, guidance_2)
    assert SPEC.validate(params.model_dump(), options) == params


def test_limits_come_from_the_model_folder(folders: dict[str, Path]) -> None:
    """The folder's JSON files say how many experts the model has, which sizes it takes, and whether it takes images."""
    assert SPEC.limits({"model": folders["ti2v"]}).multiple == 32
    assert SPEC.limits({"model": folders["single"]}).multiple == 16
    assert SPEC.limits({"model": folders["a14b"]}).two_experts
    assert SPEC.validate({"prompt": "a", "image": PNG}, {"model": folders["ti2v"]}).image == PNG
    # The position embedding of this model has 32 positions on each axis. A video of 129 frames needs more.
    assert errors({"frames": 129}, {"model": folders["single"], "limits": {"max_frames": 200}})


def test_every_attempt_at_a_task_has_the_same_seed() -> None:
    """If the input has no seed, the seed depends only on the task's id. A given seed is used unchanged."""
    params = VideoParams(prompt="a")
    assert params.seed_for("video_01A") == params.seed_for("video_01A") != params.seed_for("video_01B")
    assert VideoParams(prompt="a", seed=7).seed_for("video_01A") == 7


def test_cost_is_proportional_to_the_work() -> None:
    """Guidance doubles the cost. So do twice the steps, and twice the pixels. Estimates of waits use the cost."""
    single = cost(VideoParams(prompt="a", guidance=1.0))
    assert cost(VideoParams(prompt="a", guidance=3.0)) == 2 * single
    assert cost(VideoParams(prompt="a", guidance=1.0, steps=40)) == 2 * single
    assert cost(VideoParams(prompt="a", guidance=1.0, size="128x64")) == 2 * single


def test_the_spec_imports_neither_torch_nor_pillow() -> None:
    """The API can validate input without torch, numpy, Pillow, PyAV and diffusers."""
    code = (
        "import sys, daybreak_server.workloads.video.spec.params, daybreak_server.workloads.video.spec.verify,"
        "daybreak_server.workloads.video.pipeline.parallel_plan, daybreak_server.workloads.video.pipeline.workload;"
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'av', 'diffusers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
