"""The output of a task: a local file, whose parts are stored while the work continues.

``append`` writes the results of lines to the file. ``store`` lets a separate thread store the results since the last
part as a new part, and waits at most ``timeout_s`` for this thread. So a slow blob store may delay checkpoints for
long, but each checkpoint delays the work by at most ``timeout_s``. The
:class:`~daybreak_server.engines.serving.bulk.ledger.Ledger` advances when a part is stored.

The parts are below ``<task>/checkpoints/``, so they are deleted with the checkpoints when the task ends. The artifact
is the whole file; it is stored like every other artifact.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from daybreak_server.domain.log_context import inherited
from daybreak_server.engines.serving.bulk.ledger import Ledger, OutputPart
from daybreak_server.ports.blobs import BlobError, BlobExistsError, BlobNotFoundError, Blobs

_log = logging.getLogger(__name__)
_PIECE = 1 << 20


class PartMismatchError(Exception):
    """A stored part is missing, or has other bytes than the ledger says."""


class Output:
    """The output of a task, as the module describes it. Only one thread calls its public methods.

    :param prefix: The keys of parts begin with it: ``<task>/checkpoints/<number of the attempt>-``.
    """

    def __init__(self, path: Path, ledger: Ledger, blobs: Blobs, *, prefix: str) -> None:
        self.path = path
        self.ledger = ledger
        """Covers the lines whose results are in stored parts."""
        self._blobs = blobs
        self._prefix = prefix
        self._file = path.open("wb")
        self._written = 0
        self._line, self._offset, self._failed = ledger.line, ledger.offset, ledger.failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bulk-parts")
        self._pending: Future[Ledger | None] | None = None

    @property
    def line(self) -> int:
        """The number of the last input line whose result has been written."""
        return self._line

    @property
    def failed(self) -> int:
        """How many of the written results are errors."""
        return self._failed

    def restore(self) -> Iterator[None]:
        """Fetch the parts of the ledger. Yields after each piece.

        :raises PartMismatchError: if a stored part is not what the ledger says. The caller must then start at line 1.
        :raises BlobError: if the blob store cannot be read.
        """
        for part in self.ledger.parts:
            digest, size = hashlib.sha256(), 0
            try:
                with self._blobs.open(part.key) as stored:
                    while piece := stored.read(_PIECE):
                        digest.update(piece)
                        size += len(piece)
                        self._file.write(piece)
                        yield
            except BlobNotFoundError as exc:
                raise PartMismatchError(f"{part.key} does not exist") from exc
            if size != part.size_bytes or digest.hexdigest() != part.sha256:
                raise PartMismatchError(f"{part.key} has other bytes than its checkpoint says")
        self._written = self.ledger.size_bytes

    def append(self, lines: Sequence[bytes], *, line: int, offset: int, failed: int) -> None:
        """Write lines of output.

        :param lines: Without their line breaks.
        :param line: The number of the last input line whose result is in ``lines``. This input line ends at ``offset``.
        :param failed: How many of ``lines`` are errors.
        """
        self._file.writelines(piece for text in lines for piece in (text, b"\n"))
        self._written += sum(len(text) + 1 for text in lines)
        self._line, self._offset = line, offset
        self._failed += failed

    def store(self, *, timeout_s: float) -> Ledger:
        """Store what has been written; wait at most ``timeout_s``. Returns the ledger of the parts stored so far."""
        self._take(0)
        if self._pending is None and self._line > self.ledger.line:
            self._file.flush()
            until = (self._line, self._offset, self._failed)
            begin, end = self.ledger.size_bytes, self._written
            self._pending = self._thread.submit(inherited(self._store), self.ledger, begin, end, until)
        self._take(timeout_s)
        return self.ledger

    def finish(self) -> Path:
        """Close the file, and return its path."""
        self._file.close()
        return self.path

    def close(self) -> None:
        """Close the file, and end the thread once its part is stored."""
        self._file.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self, timeout_s: float) -> None:
        if self._pending is None or not wait([self._pending], timeout=timeout_s).done:
            return
        pending, self._pending = self._pending, None
        self.ledger = pending.result() or self.ledger

    def _store(self, ledger: Ledger, begin: int, end: int, until: tuple[int, int, int]) -> Ledger | None:
        line, offset, failed = until
        key = f"{self._prefix}{len(ledger.parts)}-{line}.jsonl"
        try:
            with (
                tempfile.NamedTemporaryFile(dir=self.path.parent, suffix=".part") as copy,
                self.path.open("rb") as file,
            ):
                file.seek(begin)
                digest, left = hashlib.sha256(), end - begin
                while left:
                    piece = file.read(min(left, _PIECE))
                    if not piece:
                        raise OSError(f"{self.path} has become shorter")
                    digest.update(piece)
                    copy.write(piece)
                    left -= len(piece)
                copy.flush()
                self._upload(key, Path(copy.name), size_bytes=end - begin)
        except (BlobError, OSError, ValueError) as exc:
            _log.warning("the output up to line %d could not be stored, so it is stored later: %s", line, exc)
            return None
        part = OutputPart(key=key, size_bytes=end - begin, sha256=digest.hexdigest())
        return ledger.with_part(part, line=line, offset=offset, failed=failed)

    def _upload(self, key: str, path: Path, *, size_bytes: int) -> None:
        try:
            for _ in self._blobs.upload(key, path, content_type="application/jsonl"):
                pass
        except BlobExistsError:
            # The key contains the numbers of this attempt and of the part's last line. So an earlier upload by this
            # attempt stored this part, and the blob store's reply was lost.
            if self._blobs.stat(key).size_bytes != size_bytes:
                raise
