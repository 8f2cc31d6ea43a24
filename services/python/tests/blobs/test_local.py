"""Tests of the blob store in a local folder: links, permissions, full disks, foreign files, and concurrent calls."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.adapters.blobs import folder_of, open_blobs
from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.ports.blobs import BlobExistsError, BlobNotFoundError, BlobRefusedError
from daybreak_server.settings.tree import ArtifactSettings

if TYPE_CHECKING:
    from .conftest import Place


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the store. It contains a file with a secret."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"data")
    return path


def test_symbolic_links_in_the_store_are_not_followed(
    local: Place, tmp_path: Path, outside: Path, source: Path
) -> None:
    """No call reads, writes, lists or deletes anything behind a symbolic link."""
    root = tmp_path / "store"
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    for key in ("folder/secret", "file"):
        with pytest.raises(BlobNotFoundError):
            local.blobs.open(key)
        with pytest.raises(BlobNotFoundError):
            local.blobs.stat(key)
    with pytest.raises(BlobRefusedError, match="symbolic link"):
        list(local.blobs.upload("folder/new", source, content_type="video/mp4"))
    with pytest.raises(BlobExistsError):
        list(local.blobs.upload("file", source, content_type="video/mp4"))
    assert list(local.blobs.list("")) == list(local.blobs.list("folder")) == []
    with pytest.raises(BlobRefusedError, match="symbolic link"):
        local.blobs.delete("folder/secret")
    local.blobs.delete("folder")
    local.blobs.delete("file")
    assert sorted(os.listdir(outside)) == ["secret"]
    assert os.listdir(root) == []


def test_files_with_invalid_names_are_not_part_of_the_store(local: Place, tmp_path: Path) -> None:
    """Pipes, and files whose names are not valid keys, are not listed. Opening a pipe does not hang."""
    root = tmp_path / "store"
    (root / "with space").write_bytes(b"x")
    (root / "ümlaut").mkdir()
    os.mkfifo(root / "pipe")
    assert list(local.blobs.list("")) == []
    with pytest.raises(BlobNotFoundError):
        local.blobs.open("pipe")


def test_the_root_of_the_store_may_be_a_symbolic_link(tmp_path: Path, source: Path) -> None:
    """The configured folder may be a symbolic link, and its path may contain spaces."""
    (tmp_path / "real folder").mkdir()
    (tmp_path / "link to it").symlink_to(tmp_path / "real folder")
    blobs = open_blobs(ArtifactSettings(url=(tmp_path / "link to it").as_uri()))
    list(blobs.upload("a/x", source, content_type="video/mp4"))
    assert (tmp_path / "real folder" / "a" / "x").read_bytes() == b"data"


def test_a_file_in_a_folder_has_no_url(local: Place) -> None:
    """The API itself serves the files of a local store."""
    assert local.blobs.url("a/x", expires_s=60) is None


def test_a_file_cannot_take_the_place_of_a_folder(local: Place, source: Path) -> None:
    """A file can be stored neither below another file nor under the name of a folder."""
    list(local.blobs.upload("a", source, content_type="video/mp4"))
    with pytest.raises(BlobRefusedError, match="has the name of a folder"):
        list(local.blobs.upload("a/b", source, content_type="video/mp4"))
    list(local.blobs.upload("c/d", source, content_type="video/mp4"))
    with pytest.raises(BlobExistsError):
        list(local.blobs.upload("c", source, content_type="video/mp4"))


def in_new_process(program: str, *arguments: Path) -> str:
    """Run a small program in its own process, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


_HEAD = (
    "import os, sys; from pathlib import Path\n"
    "from daybreak_server.adapters.blobs.local import LocalBlobs\n"
    "from daybreak_server.ports.blobs import BlobError\n"
    "root, source = Path(sys.argv[1]), Path(sys.argv[2])\n"
)
_UPLOAD = (
    "try: list(blobs.upload('a/x', source, content_type='video/mp4'))\n"
    "except BlobError as exc: print(type(exc).__name__, exc)\n"
)


def test_a_folder_without_permission_is_refused(tmp_path: Path, source: Path) -> None:
    """The error has the path of the folder and the missing right. The upload runs without root's rights."""
    root = tmp_path / "store"
    root.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    root.chmod(0o555)
    drop = "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
    output = in_new_process(f"{_HEAD}{drop}blobs = LocalBlobs(root)\n{_UPLOAD}", root, source)
    assert output.startswith("BlobRefusedError")
    assert str(root) in output
    assert "the right to read and write there" in output


def test_an_upload_to_a_full_disk_leaves_no_file(tmp_path: Path, source: Path) -> None:
    """The error says what to do, and the partial file is removed. A limit on file sizes stands in for a full disk."""
    source.write_bytes(b"x" * 200_000)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    output = in_new_process(f"{_HEAD}{limit}blobs = LocalBlobs(root)\n{_UPLOAD}", tmp_path / "store", source)
    assert output.startswith("BlobRefusedError")
    assert "ulimit" in output
    assert list((tmp_path / "store").rglob("*")) == []


def test_a_delete_that_removes_empty_folders_does_not_disturb_uploads(tmp_path: Path, source: Path) -> None:
    """An upload does not fail when a delete removes the folder that the upload needs."""
    blobs = LocalBlobs(tmp_path / "store")

    def work(number: int) -> int:
        for turn in range(20):
            key = f"task/{number}.{turn}/x"
            list(blobs.upload(key, source, content_type="video/webm"))
            assert blobs.delete(key) == 1
        return 20

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 120
    assert list((tmp_path / "store").rglob("*")) == []


@pytest.mark.parametrize("url", ["file://host/x", "file:", "gs://bucket", "s3:///x", "folder", ""])
def test_a_url_that_is_not_a_store_is_refused_with_an_example(url: str) -> None:
    """The error shows what a valid URL looks like."""

    class Address:
        s3 = ArtifactSettings().s3

    Address.url = url  # type: ignore[attr-defined]
    with pytest.raises(BlobRefusedError, match="file:///"):
        open_blobs(Address())  # type: ignore[arg-type]


def test_a_file_url_may_be_relative_or_escaped() -> None:
    """A ``file:`` URL may be relative, have the host ``localhost``, and write a space as %20."""
    assert folder_of("file:///a/b%20c") == Path("/a/b c")
    assert folder_of("file:a/b") == Path("a/b")
    assert folder_of("file://localhost/a") == Path("/a")
