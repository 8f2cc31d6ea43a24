"""A new attempt continues the output after the stored parts: no line is lost, and none appears twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.engines.serving.bulk.ledger import Ledger, resumed
from daybreak_server.engines.serving.bulk.output import Output, PartMismatchError

MARK = "0" * 64


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@contextlib.contextmanager
def opened(blobs: LocalBlobs, folder: Path, snapshot: bytes | None = None) -> Iterator[Output]:
    folder.mkdir(exist_ok=True)
    ledger = resumed(snapshot, MARK) if snapshot else Ledger(fingerprint=MARK)
    assert ledger is not None
    attempt = Output(folder / "output.jsonl", ledger, blobs, prefix=f"t/checkpoints/{folder.name}-")
    with contextlib.closing(attempt):
        for _ in attempt.restore():
            pass
        yield attempt


def write(output: Output, until: int) -> None:
    numbers = range(output.line + 1, until + 1)
    output.append([b"%d" % number for number in numbers], line=until, offset=until * 10, failed=until == 5)


def test_an_attempt_continues_behind_the_last_stored_part(blobs: LocalBlobs, tmp_path: Path) -> None:
    """The second attempt ignores what the first attempt wrote or stored after the snapshot."""
    with opened(blobs, tmp_path / "1") as first:
        write(first, 3)
        first.store(timeout_s=30)
        write(first, 5)
        snapshot = first.store(timeout_s=30).dump()
        write(first, 7)
        first.store(timeout_s=30)
        write(first, 9)
    with opened(blobs, tmp_path / "2", snapshot) as second:
        assert (second.line, second.ledger.offset, second.failed) == (5, 50, 1)
        write(second, 8)
        assert len(second.store(timeout_s=30).parts) == 3
        write(second, 10)
        text = second.finish().read_text()
    assert text.split() == [str(number) for number in range(1, 11)]


def test_a_snapshot_without_news_stores_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    """A part is stored only if lines have been written since the last part."""
    with opened(blobs, tmp_path / "1") as output:
        assert output.store(timeout_s=30) == Ledger(fingerprint=MARK)
        write(output, 2)
        assert output.store(timeout_s=30) == output.store(timeout_s=30)
    assert len(list(blobs.list("t"))) == 1


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_part_that_is_not_what_the_checkpoint_says_is_refused(
    blobs: LocalBlobs, tmp_path: Path, change: str
) -> None:
    """A wrong part would put wrong lines into the artifact."""
    with opened(blobs, tmp_path / "1") as first:
        write(first, 3)
        ledger = first.store(timeout_s=30)
    (part,) = ledger.parts
    blobs.delete(part.key)
    if change == "other":
        (tmp_path / "x").write_bytes(b"4\n5\n6\n")
        list(blobs.upload(part.key, tmp_path / "x", content_type="application/jsonl"))
    with pytest.raises(PartMismatchError), opened(blobs, tmp_path / "2", ledger.dump()):
        pass


@pytest.mark.parametrize("snapshot", [b"", b"{", b"[]", b"{}", b'{"version": 1}', b"\xff"])
def test_a_snapshot_that_cannot_be_read_is_ignored(snapshot: bytes) -> None:
    """An unreadable snapshot does not make the task fail. The attempt begins at line one."""
    assert resumed(snapshot, MARK) is None


def test_a_snapshot_of_another_file_is_ignored(blobs: LocalBlobs, tmp_path: Path) -> None:
    """The fingerprint in the snapshot shows that the snapshot belongs to another file."""
    with opened(blobs, tmp_path / "1") as output:
        write(output, 3)
        snapshot = output.store(timeout_s=30).dump()
    found = resumed(snapshot, MARK)
    assert found is not None
    assert found.line == 3
    assert resumed(snapshot, "1" * 64) is None


def test_a_snapshot_before_the_first_stored_part_is_of_use() -> None:
    """Such a snapshot has no line yet, but it belongs to the same file, so the attempt logs no warning."""
    assert resumed(Ledger(fingerprint=MARK).dump(), MARK) == Ledger(fingerprint=MARK)
