"""What a running task sees of its group: on followers nothing but the snapshot to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daybreak_server.domain.tasks import EventDraft
from daybreak_server.gang.files import Draft, file_name

MAX_LINE = 2000
MAX_PREVIEW = 32 * 1024


class FollowerContext:
    """Implements :class:`daybreak_server.workloads.base.Context` where nobody listens."""

    def __init__(self, *, workdir: Path, resume: bytes | None) -> None:
        self._workdir = workdir
        self._resume = resume

    @property
    def workdir(self) -> Path:
        """A scratch folder of this attempt."""
        return self._workdir

    @property
    def resume(self) -> bytes | None:
        """The snapshot to go on from."""
        return self._resume

    def resumed_from(self, step: int) -> None:
        """Only the leader tells."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Only the leader tells."""

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Only the leader shows."""

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """Only the leader leaves files."""


class LeaderContext(FollowerContext):
    """Keeps what the workload leaves until the leader sends it on."""

    def __init__(
        self,
        *,
        workdir: Path,
        resume: bytes | None,
        note: Callable[[EventDraft], None],
        on_resumed: Callable[[int], None],
    ) -> None:
        super().__init__(workdir=workdir, resume=resume)
        self._note = note
        self._on_resumed = on_resumed
        self.artifacts: dict[str, Draft] = {}
        self.latest_preview: tuple[bytes, int, str] | None = None

    def resumed_from(self, step: int) -> None:
        """Goes into the record."""
        self._on_resumed(step)

    def log(self, message: str, *, level: str = "info") -> None:
        """A line of the task's stream."""
        self._note(EventDraft(type="log", data={"level": level, "message": message[:MAX_LINE]}))

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Only the latest is kept; one that is too large is named in the log and left out."""
        if len(image) > MAX_PREVIEW:
            self.log(f"a preview of {len(image)} bytes is larger than {MAX_PREVIEW}", level="warning")
            return
        self.latest_preview = (image, step, content_type)

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """To be uploaded when ``run`` has ended. A later one of the same name replaces the earlier."""
        safe = file_name(name or path.name)
        self.artifacts[safe] = Draft(path=path, name=safe, content_type=content_type)
