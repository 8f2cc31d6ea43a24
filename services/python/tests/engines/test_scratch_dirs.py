"""Scratch scratch_dirs of attempts: always empty at the start, reused if an attempt left nothing, removed at the
end."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.engines.rank.scratch_dirs import ScratchDirs


def test_an_empty_folder_serves_the_next_attempt(tmp_path: Path) -> None:
    """Instant tasks need not make a folder each."""
    scratch_dirs = ScratchDirs(tmp_path / "scratch")
    with scratch_dirs.scratch_dir() as first:
        assert list(first.iterdir()) == []
    with scratch_dirs.scratch_dir() as second:
        assert second == first


def test_an_attempt_never_sees_what_another_left(tmp_path: Path) -> None:
    """A folder with a file in it is removed, and the next attempt gets another."""
    scratch_dirs = ScratchDirs(tmp_path)
    with scratch_dirs.scratch_dir() as first:
        (first / "latents").write_text("x")
    assert not first.exists()
    with scratch_dirs.scratch_dir() as second:
        assert second != first
        assert list(second.iterdir()) == []


def test_a_spare_folder_that_vanished_is_replaced_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """A cleaner of temporary files may remove it between attempts."""
    scratch_dirs = ScratchDirs(tmp_path)
    with scratch_dirs.scratch_dir() as first:
        pass
    first.rmdir()
    with scratch_dirs.scratch_dir() as second:
        assert second.is_dir()
    scratch_dirs.close()
    assert list(tmp_path.iterdir()) == []
