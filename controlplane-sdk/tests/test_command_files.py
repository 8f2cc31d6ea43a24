"""What `-o` means in each command, and that an unwritable path is reported before any work starts."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

GENERATE = ("generate", "a kite over the sea")
DOWNLOAD = ("tasks", "download", "video_01", "video.mp4")


def link_to(device: str, folder: Path) -> None:
    """Create a link to a device. If a bug replaces the output file while the tests run as root, only the link is
    lost, not the device."""
    (folder / Path(device).name).symlink_to(device)


@pytest.mark.parametrize("words", [GENERATE, DOWNLOAD])
@pytest.mark.parametrize("name", ["-", "stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_dash_is_stdout(
    process: Any, served: bytes, words: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    """Stdout contains only the file's bytes, and no file is left behind."""
    link_to("/dev/stdout", tmp_path)
    done = process(*words, "-o", name)
    assert (done.code, done.out) == (0, served), done.error
    assert [path.name for path in tmp_path.iterdir()] == ["stdout"]


def test_stdout_appended_to_a_file_keeps_its_contents(process: Any, served: bytes, tmp_path: Path) -> None:
    link_to("/dev/stdout", tmp_path)
    (tmp_path / "all.mp4").write_bytes(b"before")
    done = process(*GENERATE, "-o", "stdout", shell=">> all.mp4")
    assert done.code == 0, done.error
    assert (tmp_path / "all.mp4").read_bytes() == b"before" + served


def test_o_creates_a_new_folder(process: Any, served: bytes, tmp_path: Path) -> None:
    for words, folder in ((GENERATE, "made/"), (DOWNLOAD, "kept/")):
        done = process(*words, "-o", folder)
        assert (done.code, done.out) == (0, f"{folder}video.mp4\n".encode()), done.error
        assert (tmp_path / folder / "video.mp4").read_bytes() == served


def test_if_a_task_has_other_files_the_last_line_says_so(process: Any, served: bytes) -> None:
    """`generate` downloads only the video, but the task also has a JSON file."""
    done = process(*GENERATE)
    assert "daybreak tasks download video_01 (all 2 files)" in done.error.splitlines()[-1], done.error


def test_download_accepts_o_like_the_other_commands(process: Any, served: bytes, tmp_path: Path) -> None:
    """With one NAME, `-o` may be a file. Without NAME, `-o` is a folder, which is created. `-d` still works."""
    assert process(*DOWNLOAD, "-o", "mine.mp4").out == b"mine.mp4\n"
    assert (tmp_path / "mine.mp4").read_bytes() == served
    assert process("tasks", "download", "video_01", "-o", "all").out == b"all/video.mp4\nall/notes.json\n"
    assert process(*DOWNLOAD, "-d", "former").out == b"former/video.mp4\n"
    assert process(*DOWNLOAD).out == b"out/video_01/video.mp4\n"
    assert "-o" in process("tasks", "download", "--help").out.decode()
    assert "--dir" not in process("tasks", "download", "--help").out.decode()


def test_an_unknown_name_of_a_file_is_not_found(process: Any, served: bytes) -> None:
    """The error lists the names that exist."""
    done = process("tasks", "download", "video_01", "nope.mp4")
    assert (done.code, done.out) == (3, b"")
    assert "has no artifact 'nope.mp4'; its artifacts: video.mp4, notes.json" in done.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*DOWNLOAD, "-o", "x", "-d", "y"), "use only one of them"),
        (("tasks", "download", "video_01", "-o", "-"), "takes a single file"),
        ((*DOWNLOAD, "-o", "-", "--json"), "both write to stdout"),
        ((*GENERATE, "-o", "/dev/fd/1", "--json"), "both write to stdout"),
        ((*GENERATE, "-o", ""), "is not a file name"),
    ],
)
def test_an_invalid_o_is_wrong_usage(
    process: Any, served: bytes, scripted: Any, words: tuple[str, ...], message: str
) -> None:
    done = process(*words)
    assert (done.code, done.out) == (2, b"")
    assert message in done.error
    assert len(done.error.splitlines()) == 1
    assert scripted.seen == []


@pytest.mark.parametrize(
    "more",
    [
        ("-o", "taken/x.mp4"),
        ("-o", "n" * 256),
        ("-o", "loop"),
        ("-o", "new/" + "n" * 256 + "/"),
        ("--previews", "taken"),
        ("--previews", "taken/pictures"),
    ],
)
def test_an_unwritable_path_is_reported_before_the_submit(
    process: Any, served: bytes, scripted: Any, tmp_path: Path, more: tuple[str, ...]
) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    (tmp_path / "loop").symlink_to("loop")
    for words in (GENERATE, ("submit", "echo", "message=hi")):
        done = process(*words, *more)
        assert done.code == 10, done.error
        assert len(done.error.splitlines()) == 1
        assert done.error.startswith("error: ")
        assert scripted.seen == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "taken"]


def test_the_default_folder_is_checked_too(
    process: Any, served: bytes, scripted: Any, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    done = process(*GENERATE)
    assert done.code == 10
    assert "Not a directory" in done.error
    assert scripted.seen == []


def test_a_long_file_name_works(process: Any, served: bytes, tmp_path: Path) -> None:
    name = "n" * 236 + ".mp4"
    assert process(*GENERATE, "-o", name).code == 0
    assert (tmp_path / name).read_bytes() == served


def test_a_fifo_feeds_a_player(process: Any, served: bytes, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "player")
    with subprocess.Popen(["cat", tmp_path / "player"], stdout=subprocess.PIPE) as player:
        try:
            done = process(*GENERATE, "-o", "player")
            assert done.code == 0, done.error
            assert stat.S_ISFIFO((tmp_path / "player").stat().st_mode)
            assert player.communicate(timeout=30)[0] == served
        finally:
            player.kill()


def test_a_failed_download_says_how_to_download_the_file_later(
    process: Any, served: bytes, tmp_path: Path
) -> None:
    """A full disk is noticed only after the work is done. The file is still on the server."""
    link_to("/dev/full", tmp_path)
    done = process(*GENERATE, "-o", "full")
    assert done.code == 10
    assert "full: No space left on device" in done.error
    assert "daybreak tasks download video_01" in done.error


def test_an_unwritable_preview_does_not_end_the_watch(
    process: Any, scripted: Any, make: Any, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "step-0002.webp").symlink_to("/dev/full")

    def answer(seen: Any) -> Any:
        if seen.path.endswith("/events"):
            return make.stream(make.event("preview", "1-0", step=2), make.event("succeeded", "2-0"))
        if seen.path.endswith("/preview"):
            return make.answer(b"RIFF" * 5000, headers={"Content-Type": "image/webp"})
        return make.answer(make.task(state="succeeded"))

    scripted.answers = [answer]
    done = process("tasks", "watch", "video_01", "--previews", "pictures")
    assert done.code == 0, done.error
    assert "cannot save the preview of step 2" in done.error


def test_a_path_that_is_not_utf8_keeps_its_bytes(process: Any, served: bytes, tmp_path: Path) -> None:
    done = process(*GENERATE, "-o", b"caf\xe9.mp4")
    assert (done.code, done.out) == (0, b"caf\xe9.mp4\n"), done.error
    assert (tmp_path / os.fsdecode(b"caf\xe9.mp4")).read_bytes() == served
