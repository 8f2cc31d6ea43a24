"""Scratch folders of attempts: always empty at the start, reused where an attempt left nothing, gone at the end."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.engines.gang.lockstep import ScratchDirs


def test_an_empty_folder_serves_the_next_attempt(tmp_path: Path) -> None:
    """Instant tasks make no folder each."""
    folders = ScratchDirs(tmp_path / "scratch")
    with folders.one() as first:
        assert list(first.iterdir()) == []
    with folders.one() as second:
        assert second == first


def test_what_an_attempt_left_is_never_seen_by_the_next(tmp_path: Path) -> None:
    """A folder with a file in it is removed, and the next attempt has another."""
    folders = ScratchDirs(tmp_path)
    with folders.one() as first:
        (first / "latents").write_text("x")
    assert not first.exists()
    with folders.one() as second:
        assert second != first
        assert list(second.iterdir()) == []


def test_a_spare_folder_that_vanished_is_made_anew_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """Whoever cleans the disk may remove it between attempts."""
    folders = ScratchDirs(tmp_path)
    with folders.one() as first:
        pass
    first.rmdir()
    with folders.one() as second:
        assert second.is_dir()
    folders.close()
    assert list(tmp_path.iterdir()) == []
