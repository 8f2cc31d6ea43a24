"""The context of a running task. On followers, it has only a scratch folder and the snapshot to resume from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daybreak_server.domain.artifact_names import artifact_name, distinct_name
from daybreak_server.domain.tasks import EventDraft
from daybreak_server.domain.text import short_name, storable
from daybreak_server.engines.common.artifacts import ArtifactDraft
from daybreak_server.engines.common.outputs import checked_file, checked_preview, checked_resume

MAX_PREVIEW = 32 * 1024


class FollowerContext:
    """Implements :class:`daybreak_server.workloads.base.Context` on followers, where most methods do nothing."""

    def __init__(self, *, workdir: Path, resume: bytes | None) -> None:
        self._workdir = workdir
        self._resume = resume

    @property
    def workdir(self) -> Path:
        """A scratch folder of this attempt."""
        return self._workdir

    @property
    def resume(self) -> bytes | None:
        """The snapshot to resume from; ``None`` if the attempt begins at step 0."""
        return self._resume

    def resumed_from(self, step: int) -> None:
        """Do nothing: only the leader reports."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Do nothing: only the leader reports."""

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Do nothing: only the leader shows previews."""

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """Do nothing: only the leader stores artifacts."""


class LeaderContext(FollowerContext):
    """Collects what the workload reports, until the leader writes it to the stores."""

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
        self.artifacts: dict[str, ArtifactDraft] = {}
        self._names: dict[tuple[str, Path | None], str] = {}
        self.latest_preview: tuple[bytes, int, str] | None = None
        self._lines = 0

    def resumed_from(self, step: int) -> None:
        """Report the step from which this attempt resumes. The task's record then shows this step."""
        self._on_resumed(checked_resume(step))

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line of at most 2,000 characters to the task's event stream.

        Lines are numbered, so that a reader knows how many are missing. The leader's buffer drops the oldest lines if
        lines come too fast, and the store keeps a limited number of lines.
        """
        self._lines += 1
        data = {"level": short_name(level), "message": storable(message), "line": self._lines}
        self._note(EventDraft(type="log", data=data))

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Keep this preview in place of the previous one. If it is too large, drop it and write a line to the log."""
        preview = checked_preview(image, step, content_type)
        if len(preview[0]) > MAX_PREVIEW:
            self.log(f"a preview of {len(preview[0])} bytes is larger than {MAX_PREVIEW}", level="warning")
            return
        self.latest_preview = preview

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """Keep a file to be uploaded after ``run`` has ended.

        A later artifact replaces an earlier one of the same name, or of the same path if no name is given. If some file
        system would treat two different names as the same, a number is added to the second name.
        """
        file, wanted, media_type = checked_file(path, name, content_type)
        identity = (wanted, None) if wanted is not None else (file.name, file)
        stored_name = self._names.get(identity)
        if stored_name is None:
            stored_name = distinct_name(artifact_name(identity[0]), self.artifacts)
            self._names[identity] = stored_name
        self.artifacts[stored_name] = ArtifactDraft(path=file, name=stored_name, content_type=media_type)
