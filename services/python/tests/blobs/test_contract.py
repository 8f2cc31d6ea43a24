"""What every store of files must do, shown on each kind of store."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.adapters.blobs import open_blobs
from daybreak_server.ports.blobs import (
    BlobExistsError,
    BlobKeyError,
    BlobNotFoundError,
    BlobRefusedError,
    Blobs,
    probe_key,
    probed_at_ms,
)

if TYPE_CHECKING:
    from .conftest import Place

TASK = "video_01JD00000000000000000000AA"
MIB = 1 << 20
NASTY_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    ".",
    "../x",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "/a",
    "a/..",
    "a\\b",
    "a\x00b",
    "a\nb",
    "ä",
    "a b",
    "~part-1",
    "a/~type-b",
    "%2e%2e/x",
    "a?versionId=1",
    "x" * 201,
    "/".join(["abcdefgh"] * 120),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"hello, world")
    return path


def put(blobs: Blobs, key: str, data: bytes, folder: Path, content_type: str = "video/mp4") -> list[int]:
    """Store bytes; the sizes that the upload yielded."""
    path = folder / f"to-upload-{os.urandom(4).hex()}"
    path.write_bytes(data)
    try:
        return list(blobs.upload(key, path, content_type=content_type))
    finally:
        path.unlink()


def keys(blobs: Blobs, prefix: str = "") -> list[str]:
    return [file.key for file in blobs.list(prefix)]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_comes_back_as_it_went(place: Place, tmp_path: Path) -> None:
    """Each size, around each boundary of parts, is stored whole, with its type; the sums of bytes rise."""
    for size in (0, 1, 4 * MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB):
        data, key = os.urandom(size), f"{TASK}/1.ab/video-{size}.mp4"
        sent = put(place.blobs, key, data, tmp_path)
        assert sent == sorted(sent)
        assert sent[-1] == size
        with place.blobs.open(key) as file:
            assert digest(file.read()) == digest(data)
        found = place.blobs.stat(key)
        assert (found.key, found.size_bytes, found.content_type) == (key, size, "video/mp4")


def test_types_are_kept_whatever_the_name_says(place: Place, tmp_path: Path) -> None:
    """The content type is what the writer said, also where the name tells another."""
    put(place.blobs, "a/file.mp4", b"x", tmp_path, "application/x-mine; v=1")
    assert place.blobs.stat("a/file.mp4").content_type == "application/x-mine; v=1"
    assert keys(place.blobs) == ["a/file.mp4"]
    place.blobs.delete("a/file.mp4")
    put(place.blobs, "a/file.mp4", b"x", tmp_path, "video/mp4")
    assert place.blobs.stat("a/file.mp4").content_type == "video/mp4"


def test_what_is_no_content_type_is_refused(place: Place, source: Path) -> None:
    """A type that could not stand in a header never gets in."""
    for wrong in ("", "text", "text/plain\r\nX-Evil: 1", "a/b" * 100):
        with pytest.raises(BlobRefusedError, match="content type"):
            list(place.blobs.upload("a/x", source, content_type=wrong))


@pytest.mark.parametrize("size", [1, 9 * MIB])
def test_nothing_is_overwritten(place: Place, tmp_path: Path, size: int) -> None:
    """A second upload of a key fails and leaves the first file as it was."""
    put(place.blobs, "a/x.bin", b"first", tmp_path)
    with pytest.raises(BlobExistsError, match=r"a/x\.bin"):
        put(place.blobs, "a/x.bin", b"2" * size, tmp_path)
    with place.blobs.open("a/x.bin") as file:
        assert file.read() == b"first"
    assert keys(place.blobs) == ["a/x.bin"]


@pytest.mark.parametrize("size", [100, 9 * MIB])
def test_of_two_uploads_under_way_the_first_to_end_wins(place: Place, tmp_path: Path, size: int) -> None:
    """A key that is taken while the bytes are on their way is not overwritten at the end either."""
    path = tmp_path / "slow"
    path.write_bytes(b"s" * size)
    slow = place.blobs.upload("a/x.bin", path, content_type="video/mp4")
    next(slow)
    put(place.blobs, "a/x.bin", b"quick", tmp_path)
    with pytest.raises(BlobExistsError):
        list(slow)
    with place.blobs.open("a/x.bin") as file:
        assert file.read() == b"quick"


def test_of_many_writers_one_wins(place: Place, tmp_path: Path) -> None:
    """Of 8 threads that write one key, one succeeds and its bytes are there."""
    if place.kind == "moto":
        pytest.skip("moto checks If-None-Match without a lock")

    def write(number: int) -> bytes | None:
        data = bytes([number]) * 100_000
        try:
            put(place.blobs, "a/x.bin", data, tmp_path)
        except BlobExistsError:
            return None
        return data

    with ThreadPoolExecutor(8) as pool:
        won = [data for data in pool.map(write, range(8)) if data is not None]
    with place.blobs.open("a/x.bin") as file:
        assert won == [file.read()]


@pytest.mark.parametrize("size", [0, 100, 9 * MIB])
def test_closing_an_upload_leaves_nothing(place: Place, tmp_path: Path, size: int) -> None:
    """At whichever part an upload is closed, no file is there then, and the key is still free."""
    path = tmp_path / "big"
    path.write_bytes(b"b" * size)
    parts = len(list(place.blobs.upload("a/whole", path, content_type="video/mp4")))
    for closed_after in range(parts + 1):
        upload = place.blobs.upload("a/b/x", path, content_type="video/mp4")
        for _ in range(closed_after):
            next(upload)
        close(upload)
        assert keys(place.blobs) == ["a/whole"]
        with pytest.raises(BlobNotFoundError):
            place.blobs.stat("a/b/x")
    assert put(place.blobs, "a/b/x", b"x", tmp_path) == [1]


def close(upload: Iterator[int]) -> None:
    upload.close()  # type: ignore[attr-defined]


def test_a_writer_that_dies_leaves_nothing_to_see(place: Place, tmp_path: Path) -> None:
    """After a kill in the middle of an upload there is no file, and delete removes what was left."""
    path = tmp_path / "big"
    path.write_bytes(b"b" * 20 * MIB)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from daybreak_server.adapters.blobs import open_blobs\n"
        "from daybreak_server.settings.tree import ArtifactSettings\n"
        "address = ArtifactSettings.model_validate_json(sys.argv[1])\n"
        "for sent in open_blobs(address).upload('t/1.a/x', Path(sys.argv[2]), content_type='video/mp4'):\n"
        "    if sent > 8 << 20: os._exit(7)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", program, place.address.model_dump_json(), str(path)], check=False, timeout=120
    )
    assert died.returncode == 7
    assert keys(place.blobs) == []
    assert place.blobs.delete("t/") == 0
    assert leftovers(place) == []
    put(place.blobs, "t/1.a/x", b"x", tmp_path)


def leftovers(place: Place) -> list[str]:
    """What lies in the store and is no file of it."""
    if place.kind == "local":
        root = Path(place.address.url.removeprefix("file://"))
        return [str(path) for path in root.rglob("*")]
    import boto3

    bucket, _, prefix = place.address.url.removeprefix("s3://").partition("/")
    client = boto3.session.Session().client(
        "s3", endpoint_url=place.address.s3.endpoint_url, region_name="us-east-1"
    )
    try:
        found = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", ())]
    finally:
        client.close()


RANGES = [
    (0, None, b"0123456789"),
    (3, None, b"3456789"),
    (0, 4, b"0123"),
    (3, 4, b"3456"),
    (9, 1, b"9"),
    (8, 100, b"89"),
    (10, None, b""),
    (10, 5, b""),
    (99, None, b""),
    (4, 0, b""),
]


def test_ranges(place: Place, tmp_path: Path) -> None:
    """A range is the bytes that it names, as far as there are any."""
    put(place.blobs, "a/digits", b"0123456789", tmp_path)
    for start, length, expected in RANGES:
        with place.blobs.open("a/digits", start=start, length=length) as file:
            assert file.read() == expected
        with place.blobs.open("a/digits", start=start, length=length) as file:
            assert b"".join(iter(lambda: file.read(3), b"")) == expected
    put(place.blobs, "a/empty", b"", tmp_path)
    with place.blobs.open("a/empty", length=5) as file:
        assert file.read() == b""


def test_a_negative_range_is_a_mistake_of_the_caller(place: Place) -> None:
    """Negative numbers are refused before anything is asked."""
    with pytest.raises(ValueError, match="negative"):
        place.blobs.open("a", start=-1)
    with pytest.raises(ValueError, match="negative"):
        place.blobs.open("a", length=-1)


def test_what_is_not_there_is_not_found(place: Place, tmp_path: Path) -> None:
    """Reading what is not there says so; a folder is no file."""
    put(place.blobs, "a/b/c", b"x", tmp_path)
    for key in ("none", "a", "a/b", "a/b/d", "a/b/c/d"):
        for read in (place.blobs.stat, place.blobs.open, lambda key: place.blobs.open(key, length=0)):
            with pytest.raises(BlobNotFoundError, match=key):
                read(key)  # type: ignore[operator]


def test_nasty_keys_reach_nothing(place: Place, source: Path) -> None:
    """A key of another form is refused by every call, as one that no file can have."""
    for key in NASTY_KEYS:
        refused_everywhere(place.blobs, key, source)


def refused_everywhere(blobs: Blobs, key: str, source: Path) -> None:
    with pytest.raises(BlobKeyError):
        list(blobs.upload(key, source, content_type="video/mp4"))
    for call in (blobs.open, blobs.stat, lambda key: blobs.url(key, expires_s=60)):
        with pytest.raises(BlobKeyError):
            call(key)  # type: ignore[operator]
    if not key.endswith("/") or key == "/":  # `a/` is a prefix
        with pytest.raises(BlobKeyError):
            blobs.delete(key)
        if key:  # all files
            with pytest.raises(BlobKeyError):
                list(blobs.list(key))


def test_lists_are_in_order_and_below_the_prefix_only(place: Place, tmp_path: Path) -> None:
    """A prefix is a path: `a/b` names that file and what is below it, not `a/bc`; keys are in order."""
    everything = ["a-b/x", "a.b/x", "a/b-c", "a/b.c", "a/b/1", "a/b/2/3", "a/bc", "a0", "b"]
    for key in reversed(everything):
        put(place.blobs, key, b"12", tmp_path)
    assert keys(place.blobs) == sorted(everything)
    assert keys(place.blobs, "a/b") == keys(place.blobs, "a/b/") == ["a/b/1", "a/b/2/3"]
    assert keys(place.blobs, "a0") == ["a0"]
    assert keys(place.blobs, "none") == keys(place.blobs, "a0/x") == []
    assert [file.size_bytes for file in place.blobs.list("b")] == [2]


def test_delete_takes_a_prefix_and_no_more(place: Place, tmp_path: Path) -> None:
    """Delete removes one file or all below a path, says how many, and may be repeated."""
    for key in ("t/1.a/x.mp4", "t/1.a/y.odd", "t/1.ab/x", "t/2.b/x", "tt/x"):
        put(place.blobs, key, b"1", tmp_path, "video/webm")
    assert place.blobs.delete("t/1.a") == 2
    assert keys(place.blobs) == ["t/1.ab/x", "t/2.b/x", "tt/x"]
    assert place.blobs.delete("t/1.a/") == 0
    assert place.blobs.delete("t/2.b/x") == 1
    assert place.blobs.delete("t/") == 1
    assert place.blobs.delete("none/at/all") == 0
    assert keys(place.blobs) == ["tt/x"]
    put(place.blobs, "t/1.a/x.mp4", b"again", tmp_path)
    assert place.blobs.stat("t/1.a/x.mp4").content_type == "video/mp4"


def test_an_upload_without_its_file_is_the_callers_error(place: Place, tmp_path: Path) -> None:
    """A missing source is no error of the store."""
    with pytest.raises(FileNotFoundError):
        list(place.blobs.upload("a", tmp_path / "none", content_type="video/mp4"))


def test_probe_leaves_nothing(place: Place) -> None:
    """The probe succeeds on a store that works, and cleans up."""
    place.blobs.probe()
    assert keys(place.blobs) == []
    assert leftovers(place) == []


def test_probes_side_by_side(place: Place) -> None:
    """Each makes the folder that another may have just removed."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(place.blobs.probe) for _ in range(64)]:
            done.result(30)
    assert keys(place.blobs) == []


def test_what_a_probe_writes_is_known_as_its_own() -> None:
    """By its key, which no task can have; and since when."""
    before_ms = time.time_ns() // 1_000_000
    made_ms = probed_at_ms(probe_key())
    assert made_ms is not None
    assert before_ms <= made_ms <= time.time_ns() // 1_000_000
    assert [probed_at_ms(key) for key in ("probe/x-1", "probe-1/1-a", "echo_1/1-a", "probe/")] == [None] * 4


def test_a_store_is_shared(place: Place, tmp_path: Path) -> None:
    """What one process writes, another reads: two objects at one address see the same files."""
    put(place.blobs, "a/x", b"1", tmp_path)
    assert keys(open_blobs(place.address)) == ["a/x"]
