"""The URL paths of tasks and their files, and the data of events as clients see it.

The store and the pool's event stream contain the names of files (``video.mp4``, ``preview``) instead of URLs. Two
readers use this module to make URLs from the names: the API, and :mod:`daybreak.event_relay`, which reads the stream
directly from Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from daybreak.wire.events import EventType

WITH_FILES = frozenset({EventType.ARTIFACT.value, EventType.PREVIEW.value, EventType.SUCCEEDED.value})
"""The types of events whose data contains names of files."""


def task_path(task: str) -> str:
    """The path of a task."""
    return f"/v1/tasks/{task}"


def artifact_path(task: str, name: str) -> str:
    """The path of a task's artifact."""
    return f"/v1/tasks/{task}/artifacts/{quote(name, safe='')}"


def preview_path(task: str) -> str:
    """The path of a task's latest preview."""
    return f"/v1/tasks/{task}/preview"


def public_data(task: str, kind: str, data: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The data of an event as clients see it: a file has a URL instead of its key in the blob store.

    Nulls are left out.

    ``prefix`` is the path below which a proxy serves the API.
    """
    shown = {name: value for name, value in data.items() if value is not None}
    if kind == EventType.ARTIFACT.value:
        return _file(task, shown, prefix)
    if kind == EventType.PREVIEW.value:
        shown.pop("name", None)
        return {"url": prefix + preview_path(task), **shown}
    if kind == EventType.SUCCEEDED.value:
        files = shown.get("artifacts")
        files = files if isinstance(files, list) else []
        shown["artifacts"] = [_file(task, file, prefix) for file in files if isinstance(file, Mapping)]
    return shown


def _file(task: str, file: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    shown = {name: value for name, value in file.items() if name != "key"}
    if "name" in shown:
        shown["url"] = prefix + artifact_path(task, str(shown["name"]))
    return shown
