"""The targets of a download, and what happens to the file that was there before.

Most tests run with the sync client and with the async client.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daybreak import AsyncClient, Client, DownloadError
from daybreak.core import targets

Download = Callable[[str | Path | None], Path]


@pytest.fixture(params=["sync", "async"])
def download(request: pytest.FixtureRequest, scripted: Any, served: bytes, no_environment: None) -> Download:
    """A function that downloads the task's video to a path."""

    async def with_async(path: str | Path | None) -> Path:
        async with AsyncClient(scripted.url) as client:
            return await client.download("video_01", "video.mp4", path)

    def call(path: str | Path | None) -> Path:
        if request.param == "async":
            return asyncio.run(with_async(path))
        with Client(scripted.url) as client:
            return client.download("video_01", "video.mp4", path)

    return call


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_link_stays_and_its_target_is_replaced(download: Download, served: bytes, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old.mp4").write_bytes(b"old")
    (tmp_path / "latest.mp4").symlink_to("far/old.mp4")
    assert download(tmp_path / "latest.mp4") == tmp_path / "latest.mp4"
    assert (tmp_path / "latest.mp4").is_symlink()
    assert (tmp_path / "far" / "old.mp4").read_bytes() == served
    assert names(tmp_path) == ["far", "latest.mp4"]
    assert names(tmp_path / "far") == ["old.mp4"]


def test_a_dangling_link_is_written_through(download: Download, served: bytes, tmp_path: Path) -> None:
    (tmp_path / "latest.mp4").symlink_to("far/not-yet.mp4")
    download(tmp_path / "latest.mp4")
    assert (tmp_path / "latest.mp4").is_symlink()
    assert (tmp_path / "far" / "not-yet.mp4").read_bytes() == served


def test_a_loop_of_links_is_an_error(download: Download, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        download(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


def test_a_fifo_receives_the_bytes(download: Download, served: bytes, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    got: list[bytes] = []
    # A daemon, because it waits forever if the download fails or replaces the FIFO with a file.
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert download(fifo) == fifo
    reader.join(30)
    assert got == [served]
    assert names(tmp_path) == ["pipe"]
    assert fifo.is_fifo()


def test_a_device_is_written_to(download: Download, tmp_path: Path) -> None:
    """The test writes through a link, so that wrong code would replace the link and not the device."""
    (tmp_path / "null").symlink_to("/dev/null")
    download(tmp_path / "null")
    assert (tmp_path / "null").is_symlink()
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_the_error_of_a_full_device_names_it(download: Download, tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*full'"):
        download(tmp_path / "full")


def test_an_open_descriptor_keeps_its_position(download: Download, served: bytes, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"before ")
        download(f"/dev/fd/{log.fileno()}")
        log.write(b" after")
    assert (tmp_path / "log").read_bytes() == b"before " + served + b" after"


def test_a_path_with_a_trailing_slash_creates_a_folder(
    download: Download, served: bytes, tmp_path: Path
) -> None:
    assert download(f"{tmp_path}/new/er/") == tmp_path / "new" / "er" / "video.mp4"
    assert (tmp_path / "new" / "er" / "video.mp4").read_bytes() == served


@pytest.mark.parametrize("length", [240, 255])
def test_a_name_may_have_the_maximum_length(
    download: Download, served: bytes, tmp_path: Path, length: int
) -> None:
    path = tmp_path / ("é" * ((length - 4) // 2) + "x" * (length % 2) + ".mp4")
    assert len(os.fsencode(path.name)) == length
    download(path)
    assert path.read_bytes() == served
    assert names(tmp_path) == [path.name]


def test_an_artifact_name_that_is_not_a_file_name_is_rejected() -> None:
    """A server cannot choose a path outside the target folder."""
    assert targets.target_of("/some/", "../../etc/passwd").path == Path("/some/passwd")
    for name in ("..", "a/..", "", "a\0b"):
        with pytest.raises(DownloadError, match="is not a file name"):
            targets.target_of("/some/", name)


def test_a_check_finds_unwritable_paths_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    targets.check(tmp_path / "new" / "file.mp4", "x")
    targets.check(tmp_path / "file", "x")
    targets.check("/dev/null", "x")
    for path, why in (
        (tmp_path / "file" / "x.mp4", "Not a directory"),
        (tmp_path / "file" / "new" / "x.mp4", "Not a directory"),
        (tmp_path / ("n" * 256), "File name too long"),
        (tmp_path / ("n" * 256) / "x.mp4", "File name too long"),
    ):
        with pytest.raises(OSError, match=why):
            targets.check(path, "x")
    assert names(tmp_path) == ["file"]


UNPRIVILEGED = """
import os, sys
from daybreak.core import targets
if os.geteuid() == 0:
    os.setuid(65534)
try:
    targets.check(sys.argv[1], "x")
except PermissionError as error:
    print(error.filename)
"""


def test_a_check_finds_an_unwritable_folder() -> None:
    """The check runs as a user other than root, because root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        command = [sys.executable, "-c", UNPRIVILEGED, f"{folder}/new/x.mp4"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{folder}\n"
