"""Bugs at the edges: HTTP, streams, the client and its relay."""

from __future__ import annotations

from verification.mutants.mutant import CLIENT, SERVER, TESTS, Mutant, mutant

_STREAMS = f"{SERVER}/api/streaming"
_PROMISES = f"{TESTS}/api/test_promises.py"
_SDK = "controlplane-sdk/tests"

EDGES: tuple[Mutant, ...] = (
    mutant(
        "tenant-not-checked",
        "whoever knows a task's id sees it",
        (
            f"{SERVER}/api/dependencies.py",
            "if record is None or record.tenant != caller.tenant:",
            "if record is None:",
        ),
        tests=f"{TESTS}/api/test_submit.py::test_tenants_do_not_see_each_other",
    ),
    mutant(
        "tenant-not-checked-on-preview",
        "one route forgets whose task it is",
        (
            f"{SERVER}/api/native/routes/files.py",
            "        record, _ = await ctx.record(caller, id)\n"
            "        found = await ctx.services.store.preview(record.id)\n",
            "        found = await ctx.services.store.preview(ctx.catalog.find_task(id)[0])\n",
        ),
        tests=f"{TESTS}/api/test_submit.py::test_tenants_do_not_see_each_other",
    ),
    mutant(
        "delete-of-running",
        "a task that runs can be deleted with its files",
        (
            f"{SERVER}/api/native/routes/tasks.py",
            "if not record.state.terminal:",
            "if record.state is State.QUEUED:",
        ),
        tests=f"{_PROMISES}::test_a_refused_delete_takes_no_file",
    ),
    mutant(
        "sse-repeats",
        "what is in the history and in the live feed comes twice",
        (
            f"{_STREAMS}/subscription.py",
            "if self._last is not None and frame.key <= self._last:",
            "if False:",
        ),
        tests=f"{TESTS}/api/test_composition.py",
    ),
    mutant(
        "sse-gap",
        "the first event behind the history is passed over",
        (
            f"{_STREAMS}/topic.py",
            "frame.key is not None and frame.key > start]",
            "frame.key is not None and frame.key > start][1:]",
        ),
        tests=f"{TESTS}/api/test_composition.py",
    ),
    mutant(
        "sse-history-before-feed",
        "the history is read before the feed is live: what comes in between is lost",
        (
            f"{_STREAMS}/subscription.py",
            "            await self._feed.wait_live(self._sources.timeout_s)\n",
            "            pass\n",
        ),
        tests=f"{TESTS}/api/test_composition.py",
    ),
    mutant(
        "slow-one-loses-silently",
        "events for a subscriber that is behind are dropped, and it is not told",
        (
            f"{_STREAMS}/topic.py",
            "        self._queue.clear()\n        self.lagging = True\n",
            "        self._queue.clear()\n",
        ),
        tests=f"{_PROMISES}::test_a_subscriber_that_does_not_read_is_behind_and_holds_nothing",
    ),
    mutant(
        "slow-one-grows",
        "the queue of a subscriber that does not read grows without a bound",
        (f"{_STREAMS}/topic.py", "if len(self._queue) >= self._limit:", "if self._limit < 0:"),
        tests=f"{_PROMISES}::test_a_subscriber_that_does_not_read_is_behind_and_holds_nothing",
    ),
    mutant(
        "full-is-500",
        "a full queue is told as a bug, without when to come back",
        (
            f"{SERVER}/api/errors.py",
            'ErrorCode.QUEUE_FULL, "The pool\'s queue is full',
            'ErrorCode.INTERNAL, "The pool\'s queue is full',
        ),
        tests=f"{TESTS}/api/test_errors.py::test_queue_full",
    ),
    mutant(
        "client-repeats-events",
        "a client that connects again hands out what it had",
        (
            f"{CLIENT}/core/follow.py",
            "            if parse_event_id(event_id) <= self._last_position:\n                return None\n",
            "",
        ),
        tests=f"{_SDK}/test_faults.py::test_events_exactly_once_over_broken_connections",
    ),
    mutant(
        "client-forgets-its-place",
        "a client that connects again does not say where it was",
        (f"{CLIENT}/core/follow.py", '        headers["Last-Event-ID"] = last_id\n', "        pass\n"),
        tests=f"{_SDK}/test_faults.py::test_events_go_on_after_an_id",
    ),
    mutant(
        "relay-acknowledges-first",
        "an event is acknowledged before it has been handled",
        (
            f"{CLIENT}/relay/reader.py",
            "                if entries.is_well_formed(fields):\n                    return Delivery(",
            "                if entries.is_well_formed(fields):\n"
            "                    await self._ack_ids(entry_id)\n                    return Delivery(",
        ),
        tests=f"{_SDK}/test_relay.py::test_what_was_not_acknowledged_comes_first_after_a_restart",
    ),
    mutant(
        "raylet-waits-for-agents",
        "a node of Ray joins only when its agents are there",
        (
            f"{SERVER}/adapters/ray/fast_start_node.py",
            "                _native.persist_port(self.get_session_dir_path(), self.node_id, name, port)\n",
            "                continue\n",
        ),
        tests=f"{TESTS}/local/test_ray_start.py::test_a_node_takes_work_before_its_agents_are_there",
    ),
)
