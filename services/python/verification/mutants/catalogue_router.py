"""Bugs in the router of serving pools and in its HTTP client."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_ROUTING = f"{SERVER}/api/routing"
_CONNECTION = f"{SERVER}/adapters/upstreams/connection.py"
_CLIENT_TESTS = f"{TESTS}/upstreams/test_connections.py"
_ROUTER_TESTS = f"{TESTS}/api/routing/test_pool_router.py"
_TABLE_TESTS = f"{TESTS}/api/routing/test_group_table.py"
_FAILURES = f"{TESTS}/api/routing/test_failures.py"
_PROXY = f"{TESTS}/api/routing/test_proxy.py"

ROUTER: tuple[Mutant, ...] = (
    mutant(
        "router-slot-leaks",
        "the slot of a client that leaves just when its request gets the slot is never freed",
        (
            f"{_ROUTING}/pool_router.py",
            "                self._table.ended(granted.result())  # cancelled just after it got a group\n",
            "                pass\n",
        ),
        tests=f"{_ROUTER_TESTS}::test_a_client_that_leaves_at_the_moment_of_its_turn_gives_the_slot_back",
    ),
    mutant(
        "router-lost-lease",
        "requests wait for a group whose lease has ended",
        (f"{_ROUTING}/pool_router.py", "            slot.on_lost()\n", "            pass\n"),
        tests=f"{_ROUTER_TESTS}::test_slots_of_a_group_whose_lease_ends_are_lost",
    ),
    mutant(
        "router-broken-twice",
        "a request goes back to the group that broke it",
        (f"{_ROUTING}/pool_router.py", "        if ticket.broke:\n", "        if False:\n"),
        tests=f"{_ROUTER_TESTS}::test_a_request_is_not_given_to_a_group_that_broke_it",
    ),
    mutant(
        "router-broken-for-ever",
        "a request never goes back to the only group after a connection to this group broke",
        (
            f"{_ROUTING}/pool_router.py",
            "others or [group for group in groups if ticket.broke[group.id] <= now]",
            "others",
        ),
        tests=f"{_FAILURES}::"
        "test_a_request_whose_connection_breaks_goes_to_the_same_group_if_there_is_no_other",
    ),
    mutant(
        "router-broken-at-once",
        "a request uses up all its tries at once when a connection breaks",
        (f"{_ROUTING}/pool_router.py", "if ticket.broke[group.id] <= now]", "if now]"),
        tests=f"{_ROUTER_TESTS}::test_a_request_goes_back_to_the_group_that_broke_it_if_there_is_no_other",
    ),
    mutant(
        "router-broken-first",
        "a request goes back to the group that broke it, and does not wait for another group that is full",
        (
            f"{_ROUTING}/pool_router.py",
            "groups = others or [",
            "groups = [g for g in others if g.free] or [",
        ),
        tests=f"{_ROUTER_TESTS}::test_a_request_waits_for_a_full_group_rather_than_for_one_that_broke_it",
    ),
    mutant(
        "router-breaks-do-not-count",
        "a request that breaks each connection is sent again and again until its deadline",
        (f"{_ROUTING}/pool_router.py", "        ticket.breaks += 1\n", ""),
        tests=f"{_FAILURES}::test_a_request_that_breaks_each_connection_is_given_up_long_before_its_deadline",
    ),
    mutant(
        "router-poison-by-refusal",
        "a request that kills a follower in each group, so that the leader refuses it, is sent to all groups",
        (
            f"{_ROUTING}/proxy.py",
            "if refusal_of(answer) == Refusal.BROKEN or is_broken_worker(answer):",
            "if False:",
        ),
        tests=f"{_FAILURES}::test_a_request_that_breaks_the_groups_that_run_it_is_given_up",
        waits=True,
    ),
    mutant(
        "router-busy-is-dead",
        "a group that is full for a moment counts as one that leaves",
        (f"{_ROUTING}/proxy.py", "leaves = refusal != Refusal.BUSY", "leaves = True"),
        tests=f"{_FAILURES}::test_requests_that_a_group_refuses_go_to_another_one",
    ),
    mutant(
        "router-closing-keeps-waiting",
        "requests that wait in a gateway that shuts down get their answer only at their deadline",
        (f"{_ROUTING}/pool_router.py", "        self._line.refuse_all(self._closing)\n", ""),
        tests=f"{_FAILURES}::test_a_gateway_that_shuts_down_sends_waiting_clients_to_another_one",
    ),
    mutant(
        "router-deadline-stays-here",
        "a group does not learn how much time a request has left",
        (f"{_ROUTING}/proxy.py", 'b"%.3f" % left_s', 'b"%.3f" % 1e6'),
        tests=f"{_PROXY}::test_a_request_reaches_a_group_and_its_answer_the_client",
    ),
    mutant(
        "gateway-closes-idle-connections",
        "a gateway closes an idle connection just when a proxy uses it again",
        (f"{SERVER}/api/server.py", "timeout_keep_alive=KEEP_ALIVE_S", "timeout_keep_alive=5"),
        tests=f"{TESTS}/api/test_idle_connections.py",
    ),
    mutant(
        "router-ignores-drain",
        "a group that is marked to drain gets requests",
        (f"{_ROUTING}/group_table.py", "known.drain = record.drain", "known.drain = False"),
        tests=_TABLE_TESTS,
    ),
    mutant(
        "router-drain-for-ever",
        "a group whose drain mark was removed gets no requests again",
        (
            f"{_ROUTING}/group_table.py",
            "known.drain = record.drain",
            "known.drain = known.drain or record.drain",
        ),
        tests=_TABLE_TESTS,
    ),
    mutant(
        "router-forgets-unreachable",
        "a group that refuses connections gets requests",
        (f"{_ROUTING}/group_table.py", "known.unreachable = True\n", "known.unreachable = False\n"),
        tests=_TABLE_TESTS,
    ),
    mutant(
        "router-unbounded-tenant",
        "one tenant may fill the line",
        (
            f"{_ROUTING}/waiting_line.py",
            "if self._tenants[ticket.tenant] >= self._max_waiting_per_tenant:",
            "if False:",
        ),
        tests=f"{_ROUTER_TESTS}::test_the_line_is_bounded_in_number_and_by_tenant",
    ),
    mutant(
        "router-poison",
        "a request that breaks every group that runs it is sent to all groups",
        (f"{_ROUTING}/proxy.py", "if ticket.breaks >= self._settings.max_tries:", "if False:"),
        tests=f"{_FAILURES}::test_a_group_that_dies_before_it_answers_is_replaced_by_another_one",
        waits=True,
    ),
    mutant(
        "router-cut-off-looks-complete",
        "an answer that a group breaks off looks complete to the client",
        (
            f"{_ROUTING}/forwarded_answer.py",
            '            log.warning("pool %s: group %s broke off',
            '            await send({"type": "http.response.body", "body": b""})\n'
            '            log.warning("pool %s: group %s broke off',
        ),
        tests=f"{_FAILURES}::test_after_the_first_byte_a_request_is_not_sent_again",
    ),
    mutant(
        "router-does-not-watch",
        "a client that goes away leaves its request running",
        (f"{_ROUTING}/client_watch.py", "            self._current.interrupt()\n", "            pass\n"),
        tests=f"{_PROXY}::test_a_client_that_goes_away_leaves_the_line",
    ),
    mutant(
        "router-capacity-ignored",
        "a group gets more requests than its capacity",
        (
            f"{_ROUTING}/candidates.py",
            "(self.capacity is None or self.own < self.capacity)",
            "True",
        ),
        tests=f"{_ROUTER_TESTS}::test_requests_are_served_in_the_order_of_their_arrival",
    ),
    mutant(
        "router-sessions-move",
        "sessions move to other groups whenever any group leaves",
        (
            f"{_ROUTING}/policies.py",
            "        key = key_of(request.session)\n        return max(groups, key=lambda group: group.weight(key))",
            "        return groups[key_of(request.session) % len(groups)]",
        ),
        tests=f"{TESTS}/api/routing/test_policies.py::test_only_the_sessions_of_a_group_that_leaves_move",
    ),
    mutant(
        "router-line-out-of-date",
        "requests that wait for one group keep waiting for it when a new policy lets them go to others",
        (f"{_ROUTING}/pool_router.py", "            self._line.regroup()\n", "            pass\n"),
        tests=f"{_ROUTER_TESTS}::test_a_change_of_policy_gives_other_groups_to_those_that_waited_for_one",
    ),
    mutant(
        "router-slow-bodies-not-counted",
        "request bodies that are still arriving may fill the memory",
        (f"{_ROUTING}/request_body.py", "            self._in_memory.add(len(part))\n", "            pass\n"),
        tests=f"{_PROXY}::test_bodies_that_still_arrive_count_as_kept_in_memory",
        waits=True,
    ),
    mutant(
        "client-trailers",
        "trailers of an answer become headers",
        (_CONNECTION, "if answer is None or answer.begun:  # a trailer", "if answer is None:"),
        tests=f"{_CLIENT_TESTS}::test_answers_of_all_forms",
    ),
    mutant(
        "client-truncated",
        "an answer that is cut off looks complete",
        (_CONNECTION, "elif answer.ends_with_connection and exc is None:", "elif exc is None:"),
        tests=f"{_CLIENT_TESTS}::test_an_answer_that_is_cut_off_never_looks_complete",
    ),
    mutant(
        "client-surplus",
        "a connection with an answer that nobody asked for is used again",
        (_CONNECTION, "            self._surplus = True\n", "            pass\n"),
        tests=f"{_CLIENT_TESTS}::test_bytes_after_an_answer_are_not_the_next_answer",
    ),
    mutant(
        "client-no-back-pressure",
        "answers are read into memory as fast as groups send them",
        (_CONNECTION, "            self._transport.pause_reading()\n", "            pass\n"),
        tests=f"{_CLIENT_TESTS}::test_an_answer_is_not_read_faster_than_its_reader",
    ),
    mutant(
        "client-stale",
        "an idle connection that was closed counts as a group that died",
        (_CONNECTION, "stale=self.used > 1 and not self._head_bytes", "stale=False"),
        tests=f"{_CLIENT_TESTS}::test_a_closed_idle_connection_is_not_taken_for_a_dead_group",
    ),
    mutant(
        "router-hopeless-waits",
        "requests wait on although no group of their pool can start",
        (
            f"{_ROUTING}/pool_router.py",
            "            self._line.refuse_all(NoGroupError())\n",
            "            pass\n",
        ),
        tests=f"{TESTS}/api/test_pools_at_zero.py"
        "::test_a_request_to_groups_that_cannot_load_their_model_gets_the_reason",
        waits=True,
    ),
)
