"""Bugs in the API, the event streams, the client with its relay, and the start of Ray."""

from __future__ import annotations

from verification.mutants.mutant import CLIENT, SERVER, TESTS, Mutant, mutant

_STREAMS = f"{SERVER}/api/streaming"
_PROMISES = f"{TESTS}/api/test_promises.py"
_SDK = "controlplane-sdk/tests"

EDGES: tuple[Mutant, ...] = (
    mutant(
        "tenant-not-checked",
        "anyone who knows a task's id can see it",
        (
            f"{SERVER}/api/dependencies.py",
            "if record is None or record.tenant != caller.tenant:",
            "if record is None:",
        ),
        tests=f"{TESTS}/api/test_submit.py::test_tenants_do_not_see_each_other",
    ),
    mutant(
        "tenant-of-unknown-address",
        "a local client that has reset its connection submits as the tenant `default`",
        (
            f"{SERVER}/api/auth/principal.py",
            'if connection.scope.get("client") is None and',
            "if False and",
        ),
        tests=f"{TESTS}/api/test_gone_clients.py",
    ),
    mutant(
        "tenant-not-checked-on-preview",
        "one route does not check whose task it is",
        (
            f"{SERVER}/api/task_api/routes/files.py",
            "        record, _ = await ctx.record(caller, id)\n"
            "        found = await ctx.services.store.preview(record.id)\n",
            "        found = await ctx.services.store.preview(ctx.catalog.find_task(id)[0])\n",
        ),
        tests=f"{TESTS}/api/test_submit.py::test_tenants_do_not_see_each_other",
    ),
    mutant(
        "delete-of-running",
        "a running task can be deleted with its files",
        (
            f"{SERVER}/api/task_api/routes/tasks.py",
            "if not record.state.terminal:",
            "if record.state is State.QUEUED:",
        ),
        tests=f"{_PROMISES}::test_a_refused_delete_deletes_no_file",
    ),
    mutant(
        "sse-repeats",
        "events that are in both the history and the live feed are sent twice",
        (
            f"{_STREAMS}/subscription.py",
            "if self._last is not None and frame.key <= self._last:",
            "if False:",
        ),
        tests=f"{TESTS}/api/test_subscription.py",
    ),
    mutant(
        "sse-gap",
        "the first event after the history is skipped",
        (
            f"{_STREAMS}/topic.py",
            "frame.key is not None and frame.key > start]",
            "frame.key is not None and frame.key > start][1:]",
        ),
        tests=f"{TESTS}/api/test_subscription.py",
    ),
    mutant(
        "sse-history-before-feed",
        "the history is read before the live feed starts, so events in between are lost",
        (
            f"{_STREAMS}/subscription.py",
            "            await self._feed.wait_live(self._sources.timeout_s)\n",
            "            pass\n",
        ),
        tests=f"{TESTS}/api/test_subscription.py",
    ),
    mutant(
        "slow-reader-loses-silently",
        "a slow subscriber loses events without notice",
        (
            f"{_STREAMS}/topic.py",
            "        self._queue.clear()\n        self.lagging = True\n",
            "        self._queue.clear()\n",
        ),
        tests=f"{_PROMISES}::test_a_subscriber_that_does_not_read_lags_and_holds_no_frames",
    ),
    mutant(
        "slow-reader-grows",
        "the queue of a slow subscriber grows without limit",
        (f"{_STREAMS}/topic.py", "if len(self._queue) >= self._limit:", "if self._limit < 0:"),
        tests=f"{_PROMISES}::test_a_subscriber_that_does_not_read_lags_and_holds_no_frames",
    ),
    mutant(
        "full-is-500",
        "a full queue is reported as an internal error without `Retry-After`",
        (
            f"{SERVER}/api/errors.py",
            "ErrorCode.QUEUE_FULL, \"The pool's queue is full",
            "ErrorCode.INTERNAL, \"The pool's queue is full",
        ),
        tests=f"{TESTS}/api/test_errors.py::test_a_submit_to_a_full_queue_is_503",
    ),
    mutant(
        "client-repeats-events",
        "a client that reconnects returns events again",
        (
            f"{CLIENT}/core/follow.py",
            "            if parse_event_id(event_id) <= self._last_position:\n                return None\n",
            "",
        ),
        tests=f"{_SDK}/test_faults.py::test_events_exactly_once_over_broken_connections",
    ),
    mutant(
        "client-forgets-its-place",
        "a client that reconnects does not send its last event id",
        (f"{CLIENT}/core/follow.py", '        headers["Last-Event-ID"] = last_id\n', "        pass\n"),
        tests=f"{_SDK}/test_faults.py::test_events_continue_after_an_id",
    ),
    mutant(
        "relay-acknowledges-first",
        "a relay acknowledges an event before it is handled",
        (
            f"{CLIENT}/event_relay/reader.py",
            "                if entries.is_well_formed(fields):\n                    return Delivery(",
            "                if entries.is_well_formed(fields):\n"
            "                    await self._ack_ids(entry_id)\n                    return Delivery(",
        ),
        tests=f"{_SDK}/test_relay.py::test_unacknowledged_events_come_first_after_a_restart",
    ),
    mutant(
        "raylet-waits-for-agents",
        "a Ray node joins only after its agents have started",
        (
            f"{SERVER}/adapters/ray/fast_start_node.py",
            "                _native.persist_port(self.get_session_dir_path(), self.node_id, name, port)\n",
            "                continue\n",
        ),
        tests=f"{TESTS}/local/test_ray_start.py::test_a_node_accepts_work_before_its_agents_have_started",
        waits=True,
    ),
)
