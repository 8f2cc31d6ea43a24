"""Lists of tasks: filters, order, cursors, and several pools merged into one list."""

from __future__ import annotations

from typing import Any

import pytest
from api_support import Api, FakeLeader
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.api.task_api.pagination import decode, encode, merge, ulid_of
from daybreak_server.domain.ids import TaskId, new_task_id, ulid
from daybreak_server.domain.tasks import Priority, State, TaskRecord
from daybreak_server.ports.tasks import Page


def pages(api: Api, **query: Any) -> list[list[str]]:
    """The ids on each page of a list."""
    all_pages = []
    while True:
        response = api.client.get("/v1/tasks", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        all_pages.append([task["id"] for task in page["data"]])
        assert page["has_more"] == ("next" in page)
        if not page["has_more"]:
            return all_pages
        query["after"] = page["next"]


def submit_some(api: Api, count: int) -> list[str]:
    """Submit every third task to the pool ``clips``, and the others to the pool ``echo``."""
    ids = []
    for n in range(count):
        if n % 3:
            ids.append(api.submit()["id"])
        else:
            ids.append(api.submit(pool="clips", input={"prompt": "x"})["id"])
    return ids


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_all_pools_are_one_list(api: Api, limit: int) -> None:
    """Without the filter ``pool``, the list has every task once, in the order of their ULIDs, for any page size."""
    ids = sorted(submit_some(api, 11), key=ulid_of)
    down = [task for page in pages(api, limit=limit) for task in page]
    up = [task for page in pages(api, limit=limit, order="asc") for task in page]
    assert down == ids[::-1]
    assert up == ids


def test_a_list_is_filtered_by_pool_and_states(api: Api, leader: FakeLeader) -> None:
    """The state `queued` includes delayed tasks."""
    ids = submit_some(api, 6)
    echo = [task for task in ids if task.startswith("echo_")]
    delayed = api.submit(start_at="2027-01-01T00:00:00Z")["id"]
    running = leader.claim().lease.task
    waiting = {*ids, delayed} - {running}
    assert {t for p in pages(api, pool="echo") for t in p} == {*echo, delayed}
    assert {t for p in pages(api, state="queued") for t in p} == waiting
    assert {t for p in pages(api, state=["running"]) for t in p} == {running}
    assert {t for p in pages(api, state=["running", "queued"], limit=2) for t in p} == {*ids, delayed}
    assert [t for p in pages(api, state="failed") for t in p] == []


def test_a_cursor_is_opaque_and_checked() -> None:
    """A cursor decodes to its ULID and does not show it."""
    cursor_ulid = ulid()
    assert decode(encode(cursor_ulid)) == cursor_ulid
    assert cursor_ulid not in encode(cursor_ulid)


def record(pool: str, at: int) -> TaskRecord:
    return TaskRecord(
        id=new_task_id(pool, at_ms=at),
        pool=pool,
        tenant="t",
        state=State.QUEUED,
        priority=Priority.NORMAL,
        input_json="{}",
        metadata={},
        created_ms=at,
    )


def store_page(records: list[TaskRecord], after: str | None, limit: int, scan: int, *, down: bool) -> Page:
    """A page as a store may return it. The store scans ``scan`` records and leaves out those with odd times."""
    ordered = sorted(records, key=lambda r: ulid_of(r.id), reverse=down)
    if after is not None:
        ordered = [r for r in ordered if (ulid_of(r.id) < after if down else ulid_of(r.id) > after)]
    scanned, kept = ordered[:scan], []
    for position, r in enumerate(scanned):
        if r.created_ms % 2 == 0:
            kept.append(r)
        if len(kept) == limit:
            scanned = scanned[: position + 1]
            break
    more = len(scanned) < len(ordered)
    return Page(records=tuple(kept), next=TaskId(scanned[-1].id) if more and scanned else None)


@given(
    pools=st.lists(st.lists(st.integers(1, 10_000), max_size=20), min_size=1, max_size=4),
    limit=st.integers(1, 7),
    scan=st.integers(1, 5),
    down=st.booleans(),
)
def test_a_merge_loses_and_repeats_nothing(pools: list[list[int]], limit: int, scan: int, down: bool) -> None:
    """The merged list has every record once, in order, for any limit, even if the stores return short pages."""
    stores = [[record(f"p{n}", at) for at in times] for n, times in enumerate(pools)]
    expected = sorted(
        (r.id for store in stores for r in store if r.created_ms % 2 == 0), key=ulid_of, reverse=down
    )
    listed: list[str] = []
    after: str | None = None
    for _ in range(500):
        read = [store_page(store, after, limit, scan, down=down) for store in stores]
        records, next_ulid = merge(read, limit=limit, newest_first=down)
        listed += [r.id for r in records]
        if next_ulid is None:
            break
        assert next_ulid != after
        after = next_ulid
    assert listed == expected
