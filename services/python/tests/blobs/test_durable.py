"""Tests the order of an upload: it syncs the bytes, then gives the file its name, then syncs the folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.adapters.blobs.local import LocalBlobs


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record each call of ``fsync`` and ``link`` with the inode of its file. The calls are carried out as usual."""
    calls: list[tuple[str, int]] = []
    fsync, link = os.fsync, os.link

    def synced(file: int) -> None:
        fsync(file)
        calls.append(("fsync", os.fstat(file).st_ino))

    def linked(source: str, target: str, *, src_dir_fd: int, **options: Any) -> None:
        calls.append(("link", os.stat(source, dir_fd=src_dir_fd).st_ino))
        link(source, target, src_dir_fd=src_dir_fd, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    return calls


def test_a_file_and_its_folders_are_on_the_disk_when_its_upload_ends(
    tmp_path: Path, disk_calls: list[tuple[str, int]]
) -> None:
    """The bytes are synced before the file gets its name, and the file's folders are synced before the upload ends."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 5_000_000)
    root = tmp_path / "store"
    blobs = LocalBlobs(root)
    list(blobs.upload("task/1.a/video.mp4", source, content_type="video/mp4"))
    path = root / "task/1.a/video.mp4"
    file = path.stat().st_ino
    named = disk_calls.index(("link", file))
    assert ("fsync", file) in disk_calls[:named], "the file got its name before its bytes were on the disk"
    synced = {inode for call, inode in disk_calls[named:] if call == "fsync"}
    folders = {folder.stat().st_ino for folder in (path.parent, path.parent.parent, root)}
    assert folders <= synced, "a folder of the file was not synced after the file got its name"
