"""The contract of the port ``Blobs``, tested on each kind of store."""

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

from .conftest import s3_client

if TYPE_CHECKING:
    from .conftest import Place

TASK = "video_01JD00000000000000000000AA"
MIB = 1 << 20
INVALID_KEYS = [
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
    """Upload these bytes. Returns the sizes that the upload has yielded."""
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


def test_a_file_of_any_size_is_read_back_unchanged(place: Place, tmp_path: Path) -> None:
    """Files with sizes around the boundaries of parts are stored whole. The yielded sizes rise to the file's size."""
    for size in (0, 1, 4 * MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB):
        data, key = os.urandom(size), f"{TASK}/1.ab/video-{size}.mp4"
        sent = put(place.blobs, key, data, tmp_path)
        assert sent == sorted(sent)
        assert sent[-1] == size
        with place.blobs.open(key) as file:
            assert digest(file.read()) == digest(data)
        stat = place.blobs.stat(key)
        assert (stat.key, stat.size_bytes, stat.content_type) == (key, size, "video/mp4")


def test_a_file_keeps_the_content_type_that_its_writer_gave(place: Place, tmp_path: Path) -> None:
    """The store keeps the content type even if the extension of the file implies another one."""
    put(place.blobs, "a/file.mp4", b"x", tmp_path, "application/x-mine; v=1")
    assert place.blobs.stat("a/file.mp4").content_type == "application/x-mine; v=1"
    assert keys(place.blobs) == ["a/file.mp4"]
    place.blobs.delete("a/file.mp4")
    put(place.blobs, "a/file.mp4", b"x", tmp_path, "video/mp4")
    assert place.blobs.stat("a/file.mp4").content_type == "video/mp4"


def test_an_invalid_content_type_is_refused(place: Place, source: Path) -> None:
    """A content type that is not valid in an HTTP header is refused."""
    for wrong in ("", "text", "text/plain\r\nX-Evil: 1", "a/b" * 100):
        with pytest.raises(BlobRefusedError, match="content type"):
            list(place.blobs.upload("a/x", source, content_type=wrong))


@pytest.mark.parametrize("size", [1, 9 * MIB])
def test_an_existing_file_is_not_overwritten(place: Place, tmp_path: Path, size: int) -> None:
    """A second upload to a key fails, and the first file stays as it was."""
    put(place.blobs, "a/x.bin", b"first", tmp_path)
    with pytest.raises(BlobExistsError, match=r"a/x\.bin"):
        put(place.blobs, "a/x.bin", b"2" * size, tmp_path)
    with place.blobs.open("a/x.bin") as file:
        assert file.read() == b"first"
    assert keys(place.blobs) == ["a/x.bin"]


@pytest.mark.parametrize("size", [100, 9 * MIB])
def test_of_two_concurrent_uploads_the_first_to_finish_wins(place: Place, tmp_path: Path, size: int) -> None:
    """If another upload to the key finishes first, the slower one fails at its end, and overwrites nothing."""
    path = tmp_path / "slow"
    path.write_bytes(b"s" * size)
    slow = place.blobs.upload("a/x.bin", path, content_type="video/mp4")
    next(slow)
    put(place.blobs, "a/x.bin", b"quick", tmp_path)
    with pytest.raises(BlobExistsError):
        list(slow)
    with place.blobs.open("a/x.bin") as file:
        assert file.read() == b"quick"


def test_only_one_of_many_writers_of_a_key_succeeds(place: Place, tmp_path: Path) -> None:
    """Of 8 threads that write to one key, one succeeds, and the file has the bytes of that thread."""
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
def test_a_closed_upload_leaves_no_file(place: Place, tmp_path: Path, size: int) -> None:
    """An upload that is closed after any of its parts leaves no file, and its key stays free."""
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


def test_a_killed_writer_leaves_no_visible_file(place: Place, tmp_path: Path) -> None:
    """A kill in the middle of an upload leaves no visible file, and ``delete`` removes the uploaded parts."""
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
    killed = subprocess.run(
        [sys.executable, "-c", program, place.address.model_dump_json(), str(path)], check=False, timeout=120
    )
    assert killed.returncode == 7
    assert keys(place.blobs) == []
    assert place.blobs.delete("t/") == 0
    assert leftovers(place) == []
    put(place.blobs, "t/1.a/x", b"x", tmp_path)


def leftovers(place: Place) -> list[str]:
    """What is left in a store that has no visible files: uploaded parts and folders."""
    if place.kind == "local":
        root = Path(place.address.url.removeprefix("file://"))
        return [str(path) for path in root.rglob("*")]
    bucket, _, prefix = place.address.url.removeprefix("s3://").partition("/")
    client = s3_client(place.address.s3.endpoint_url)
    try:
        response = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [upload["Key"] for upload in response.get("Uploads", ())]
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


def test_a_range_returns_the_bytes_that_exist_in_it(place: Place, tmp_path: Path) -> None:
    """A range that goes beyond the end of the file returns the bytes up to the end, or none."""
    put(place.blobs, "a/digits", b"0123456789", tmp_path)
    for start, length, expected in RANGES:
        with place.blobs.open("a/digits", start=start, length=length) as file:
            assert file.read() == expected
        with place.blobs.open("a/digits", start=start, length=length) as file:
            assert b"".join(iter(lambda: file.read(3), b"")) == expected
    put(place.blobs, "a/empty", b"", tmp_path)
    with place.blobs.open("a/empty", length=5) as file:
        assert file.read() == b""


def test_a_negative_range_raises_a_value_error(place: Place) -> None:
    """A negative start or length is a mistake of the caller, so the store is not asked."""
    with pytest.raises(ValueError, match="negative"):
        place.blobs.open("a", start=-1)
    with pytest.raises(ValueError, match="negative"):
        place.blobs.open("a", length=-1)


def test_a_missing_file_and_a_folder_are_not_found(place: Place, tmp_path: Path) -> None:
    """A key without a file is not found, and neither is the name of a folder."""
    put(place.blobs, "a/b/c", b"x", tmp_path)
    for key in ("none", "a", "a/b", "a/b/d", "a/b/c/d"):
        for read in (place.blobs.stat, place.blobs.open, lambda key: place.blobs.open(key, length=0)):
            with pytest.raises(BlobNotFoundError, match=key):
                read(key)  # type: ignore[operator]


def test_an_invalid_key_is_refused_by_every_call(place: Place, source: Path) -> None:
    """No file can have such a key, so every call refuses the key without a request to the store."""
    for key in INVALID_KEYS:
        refused_everywhere(place.blobs, key, source)


def refused_everywhere(blobs: Blobs, key: str, source: Path) -> None:
    with pytest.raises(BlobKeyError):
        list(blobs.upload(key, source, content_type="video/mp4"))
    for call in (blobs.open, blobs.stat, lambda key: blobs.url(key, expires_s=60)):
        with pytest.raises(BlobKeyError):
            call(key)  # type: ignore[operator]
    if not key.endswith("/") or key == "/":  # `a/` is a valid prefix
        with pytest.raises(BlobKeyError):
            blobs.delete(key)
        if key:  # "" lists all files
            with pytest.raises(BlobKeyError):
                list(blobs.list(key))


def test_a_list_is_ordered_and_contains_only_files_below_the_prefix(place: Place, tmp_path: Path) -> None:
    """A prefix is a path: ``a/b`` stands for the file ``a/b`` or all files below that path, but not for ``a/bc``."""
    everything = ["a-b/x", "a.b/x", "a/b-c", "a/b.c", "a/b/1", "a/b/2/3", "a/bc", "a0", "b"]
    for key in reversed(everything):
        put(place.blobs, key, b"12", tmp_path)
    assert keys(place.blobs) == sorted(everything)
    assert keys(place.blobs, "a/b") == keys(place.blobs, "a/b/") == ["a/b/1", "a/b/2/3"]
    assert keys(place.blobs, "a0") == ["a0"]
    assert keys(place.blobs, "none") == keys(place.blobs, "a0/x") == []
    assert [file.size_bytes for file in place.blobs.list("b")] == [2]


def test_delete_removes_only_files_below_the_prefix(place: Place, tmp_path: Path) -> None:
    """``delete`` removes one file or all files below a path. It returns how many it removed, and may be repeated."""
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


def test_an_upload_of_a_missing_file_raises_file_not_found(place: Place, tmp_path: Path) -> None:
    """A missing source is an error of the caller, not of the store."""
    with pytest.raises(FileNotFoundError):
        list(place.blobs.upload("a", tmp_path / "none", content_type="video/mp4"))


def test_a_probe_leaves_no_file(place: Place) -> None:
    """A probe of a working store succeeds and removes its file."""
    place.blobs.probe()
    assert keys(place.blobs) == []
    assert leftovers(place) == []


def test_concurrent_probes_do_not_disturb_each_other(place: Place) -> None:
    """If another probe has just removed the folder that a probe needs, the probe creates the folder again."""
    with ThreadPoolExecutor(8) as pool:
        for probe in [pool.submit(place.blobs.probe) for _ in range(64)]:
            probe.result(30)
    assert keys(place.blobs) == []


def test_the_key_of_a_probe_has_the_time_of_the_probe() -> None:
    """No file of a task can have the key of a probe, so the cleanup recognises a probe's file, and knows its age."""
    before_ms = time.time_ns() // 1_000_000
    probe_ms = probed_at_ms(probe_key())
    assert probe_ms is not None
    assert before_ms <= probe_ms <= time.time_ns() // 1_000_000
    assert [probed_at_ms(key) for key in ("probe/x-1", "probe-1/1-a", "echo_1/1-a", "probe/")] == [None] * 4


def test_two_objects_with_one_address_see_the_same_files(place: Place, tmp_path: Path) -> None:
    """Two processes that open the same store see each other's files."""
    put(place.blobs, "a/x", b"1", tmp_path)
    assert keys(open_blobs(place.address)) == ["a/x"]
