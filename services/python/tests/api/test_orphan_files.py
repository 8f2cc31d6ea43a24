"""The sweeper deletes old files of unknown tasks and old probe files. It keeps all other files."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api.background.orphan_files import MARGIN_S, OrphanFileSweeper
from daybreak_server.domain.ids import TaskId, made_at_ms, new_task_id
from daybreak_server.domain.tasks import NewTask
from daybreak_server.ports.blobs import probe_key, probed_at_ms
from testkit.valkey import Server

KEPT_S = 1000.0
NOW_MS = 1_800_000_000_000


def _id(pool: str, age_s: float) -> TaskId:
    return new_task_id(pool, at_ms=NOW_MS - round(age_s * 1000))


def _put(blobs: LocalBlobs, task: str, source: Path) -> None:
    for _ in blobs.upload(f"{task}/1.x/echo.txt", source, content_type="text/plain"):
        pass


async def test_only_old_files_without_a_task_are_deleted(
    valkey: Server, api_blobs: LocalBlobs, tmp_path: Path
) -> None:
    """The sweeper keeps files of known tasks, recent files, and files that belong to no configured pool."""
    source = tmp_path / "file"
    source.write_text("x")
    expired_age_s = KEPT_S + MARGIN_S + 1
    forgotten, known, recent, of_no_pool = (
        _id("echo", expired_age_s),
        _id("echo", expired_age_s),
        _id("echo", expired_age_s - 2),
        _id("not", expired_age_s),
    )
    for name in (forgotten, known, recent, of_no_pool, "readme"):
        _put(api_blobs, name, source)
    store = RedisStore(valkey.url)
    try:
        await store.submit([NewTask(id=known, pool="echo", tenant="t", input_json="{}")])
        orphans = OrphanFileSweeper(
            retention_s={"echo": KEPT_S}, store=store, blobs=api_blobs, now_ms=lambda: NOW_MS
        )
        assert await orphans.sweep() == [forgotten]
        assert await orphans.sweep() == []
    finally:
        await store.close()
    assert {blob.key.partition("/")[0] for blob in api_blobs.list("")} == {
        known,
        recent,
        of_no_pool,
        "readme",
    }


async def test_files_of_a_killed_probe_are_deleted_after_a_day(
    valkey: Server, api_blobs: LocalBlobs, tmp_path: Path
) -> None:
    """A probe that may still run keeps its file."""
    source = tmp_path / "file"
    source.write_text("probe")
    key = probe_key()
    for _ in api_blobs.upload(key, source, content_type="text/plain"):
        pass
    created_ms = probed_at_ms(key)
    assert created_ms is not None
    store = RedisStore(valkey.url)
    try:
        for late_ms, remaining in ((0, [key]), (1, [])):
            now_ms = created_ms + round(MARGIN_S * 1000) + late_ms
            orphans = OrphanFileSweeper(
                retention_s={}, store=store, blobs=api_blobs, now_ms=lambda at=now_ms: at
            )  # type: ignore[misc]
            assert await orphans.sweep() == []
            assert [blob.key for blob in api_blobs.list("")] == remaining
    finally:
        await store.close()


def test_a_task_id_contains_its_creation_time() -> None:
    """The time is exact to the millisecond."""
    assert made_at_ms(new_task_id("my-pool", at_ms=NOW_MS)) == NOW_MS
