"""What a running task sees of its group: on followers nothing but the snapshot to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daybreak_server.domain.artifact_names import artifact_name, distinct_name
from daybreak_server.domain.tasks import EventDraft
from daybreak_server.domain.text import short_name, storable
from daybreak_server.engines.rank.artifacts import ArtifactDraft
from daybreak_server.engines.rank.outputs import checked_file, checked_preview, checked_resume

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
        self.artifacts: dict[str, ArtifactDraft] = {}
        self._names: dict[tuple[str, Path | None], str] = {}
        self.latest_preview: tuple[bytes, int, str] | None = None

    def resumed_from(self, step: int) -> None:
        """Goes into the record."""
        self._on_resumed(checked_resume(step))

    def log(self, message: str, *, level: str = "info") -> None:
        """A line of the task's stream, of 2,000 characters at most."""
        self._note(EventDraft(type="log", data={"level": short_name(level), "message": storable(message)}))

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None:
        """Only the latest is kept; one that is too large is named in the log and left out."""
        preview = checked_preview(image, step, content_type)
        if len(preview[0]) > MAX_PREVIEW:
            self.log(f"a preview of {len(preview[0])} bytes is larger than {MAX_PREVIEW}", level="warning")
            return
        self.latest_preview = preview

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None:
        """To be uploaded when ``run`` has ended. A later one of the same name replaces the earlier, or of the same path
        where no name is given. Other names that some system takes for the same are told apart."""
        file, wanted, kind = checked_file(path, name, content_type)
        asked = (wanted, None) if wanted is not None else (file.name, file)
        given = self._names.get(asked)
        if given is None:
            given = distinct_name(artifact_name(asked[0]), self.artifacts)
            self._names[asked] = given
        self.artifacts[given] = ArtifactDraft(path=file, name=given, content_type=kind)
