"""Attempts start with an empty scratch directory, which the next attempt reuses if no file is left there."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.engines.common.scratch_dirs import ScratchDirs


def test_the_next_attempt_reuses_an_empty_folder(tmp_path: Path) -> None:
    """Reuse saves very short tasks the time that it takes to create a folder."""
    scratch_dirs = ScratchDirs(tmp_path / "scratch")
    with scratch_dirs.scratch_dir() as first:
        assert list(first.iterdir()) == []
    with scratch_dirs.scratch_dir() as second:
        assert second == first


def test_an_attempt_never_sees_the_files_of_another(tmp_path: Path) -> None:
    """A folder that contains a file is removed, and the next attempt gets another one."""
    scratch_dirs = ScratchDirs(tmp_path)
    with scratch_dirs.scratch_dir() as first:
        (first / "latents").write_text("x")
    assert not first.exists()
    with scratch_dirs.scratch_dir() as second:
        assert second != first
        assert list(second.iterdir()) == []


def test_a_spare_folder_that_vanished_is_replaced_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """A program that cleans up temporary files may remove the spare folder between two attempts."""
    scratch_dirs = ScratchDirs(tmp_path)
    with scratch_dirs.scratch_dir() as first:
        pass
    first.rmdir()
    with scratch_dirs.scratch_dir() as second:
        assert second.is_dir()
    scratch_dirs.close()
    assert list(tmp_path.iterdir()) == []
