"""Checks the file that a task of an ``online`` pool names, when the task is submitted.

A file is an artifact, or it is in a *place*: a folder or a bucket that the pool's setting ``bulk.places`` names. The
group would refuse any other place.

The client names an *artifact* by its task and its name. Only the API knows which tenant owns the task. So the API
checks the tenant here and writes the artifact's key into the input, where the group finds it. A task never changes its
tenant, and a succeeded task never changes its artifacts. So the check holds for as long as the artifact exists. A
client must not send a key.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from daybreak_server.api.errors import ApiError, invalid_field
from daybreak_server.api.intake.catalog import Catalog, PoolEntry
from daybreak_server.domain.tasks import State
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.workloads.bulk import BulkInput, BulkParams

_FIELD = "input.file"


def check_place(entry: PoolEntry, params: BaseModel) -> None:
    """Check that the pool's settings have the place of the file. :raises ApiError: ``invalid_input`` otherwise."""
    if not isinstance(params, BulkParams) or not isinstance(params.file, BulkInput):
        return
    places = entry.settings.bulk.places if entry.settings.bulk is not None else {}
    if params.file.place in places:
        return
    known = (
        f"Use one of: {', '.join(sorted(places))}."
        if places
        else "It has none, so name an artifact of a task."
    )
    raise invalid_field(
        f"{_FIELD}.place", f"The pool {entry.name!r} has no place {params.file.place!r} for files. {known}"
    )


async def with_artifact_key(
    body: dict[str, Any], *, catalog: Catalog, store: TaskStore, tenant: str
) -> dict[str, Any]:
    """The body of a submit. If it names an artifact, the key is added. A malformed body is left to validation.

    :raises ApiError: ``invalid_input`` if the caller has no such artifact, or has sent a key.
    :raises StoreUnavailableError: if the store cannot be reached.
    """
    entry, given = catalog.find(body.get("pool")), body.get("input")
    if entry is None or not issubclass(entry.spec.Params, BulkParams) or not isinstance(given, dict):
        return body
    file = given.get("file")
    if not isinstance(file, dict):
        return body
    if "key" in file:
        raise invalid_field(f"{_FIELD}.key", "The server fills in `key`. Leave it out.")
    task, name = file.get("task"), file.get("artifact")
    if not isinstance(task, str) or not isinstance(name, str):
        return body
    key = await _key_of(task, name, catalog=catalog, store=store, tenant=tenant)
    return {**body, "input": {**given, "file": {**file, "key": key}}}


async def _key_of(task: str, name: str, *, catalog: Catalog, store: TaskStore, tenant: str) -> str:
    try:
        task_id, _ = catalog.find_task(task)
    except ApiError:
        record = None
    else:
        record = await store.get(task_id)
    if record is None or record.tenant != tenant:
        raise invalid_field(
            f"{_FIELD}.task", f"There is no task {task[:100]!r}. Send the id of one of your tasks."
        )
    if record.state is not State.SUCCEEDED:
        advice = "Send another task's id." if record.state.terminal else "Wait until it has succeeded."
        raise invalid_field(
            f"{_FIELD}.task", f"The task is {record.state.public}, so it has no artifacts. {advice}"
        )
    for artifact in record.artifacts:
        if artifact.name == name:
            return artifact.key
    known = ", ".join(artifact.name for artifact in record.artifacts) or "none"
    raise invalid_field(f"{_FIELD}.artifact", f"The task has no artifact {name[:100]!r}. It has: {known}.")
