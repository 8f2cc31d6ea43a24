"""Bugs in the Lua scripts: fencing, leases, fair shares, events, housekeeping."""

from __future__ import annotations

from verification.mutants.mutant import LUA, SERVER, TESTS, Mutant, mutant

_FENCE = "if not r or r.token ~= a.token then return STALE end"
_NO_FENCE = "if not r or not r.token then return STALE end"
_RUNNING = f"{TESTS}/store/test_running.py"
_WAITING = f"{TESTS}/store/test_waiting.py"
_HOUSEKEEPING = f"{TESTS}/store/test_housekeeping.py"
_FACES = f"{TESTS}/store/test_adapters.py"
_LOAD = f"{TESTS}/store/test_load.py"
_PROMISES = f"{TESTS}/store/test_promises.py"
_ZOMBIE = f"{_RUNNING}::test_a_zombie_writes_nothing[valkey]"
_ATTEMPT, _CLAIM, _HISTORY, _QUEUE = (
    f"{LUA}/_{name}.lua" for name in ("attempt", "claim", "history", "queue")
)
_LIMITS = f"{SERVER}/adapters/redis/limits.py"
_SETTLE, _SUBMIT, _TICK, _LEASE_CLOCK = (
    f"{LUA}/{name}.lua" for name in ("settle", "submit", "tick", "_lease_clock")
)

_FENCES = (
    mutant(
        "renew-without-token",
        "a zombie renews the lease of the new attempt",
        (f"{LUA}/renew.lua", _FENCE, _NO_FENCE),
        tests=_ZOMBIE,
    ),
    mutant(
        "report-without-token",
        "a zombie writes events and a checkpoint into the new attempt",
        (f"{LUA}/report.lua", _FENCE, _NO_FENCE),
        tests=_ZOMBIE,
    ),
    mutant(
        "preview-of-stale-token",
        "a zombie overwrites the preview of the new attempt",
        (f"{LUA}/preview.lua", _FENCE, _NO_FENCE),
        tests=f"{_PROMISES}::test_a_zombie_does_not_overwrite_the_new_attempts_preview[valkey]",
    ),
    mutant(
        "settle-without-fence",
        "the first settle wins, with any token",
        (_SETTLE, "if r.token == s.token then", "if r.token then"),
        tests=_ZOMBIE,
    ),
    mutant(
        "stale-settle-is-success",
        "a leader that lost its task gets a success when it settles",
        (_SETTLE, "return { 'stale', r.state }", "return { 'settled', r.state, { 'none' } }"),
        tests=_ZOMBIE,
    ),
    mutant(
        "settle-not-remembered",
        "the store rejects a repeated settle as stale",
        (_SETTLE, "set(r, 'done', s.token .. ' ' .. r.state)", ""),
        tests=f"{_RUNNING}::test_a_repeated_settle_gets_the_same_answer[valkey-Finished]",
    ),
    mutant(
        "repeated-settle-claims-again",
        "a repeated settle releases the task that the first one claimed, and claims another",
        (_SETTLE, "if is_held(r, c.group) then return claim_reply(r) end", ""),
        tests=f"{_RUNNING}::test_a_repeated_settle_gets_the_same_answer[valkey-Finished]",
    ),
    mutant(
        "lost-claim-kept",
        "a group that repeats a claim whose reply was lost keeps the tasks of both claims",
        (_ATTEMPT, "    if is_held(r, name) then release(r, why, true) end\n", ""),
        tests=f"{_RUNNING}::test_a_release_keeps_place_and_checkpoint[valkey-claim lost]",
    ),
    mutant(
        "token-used-twice",
        "the attempt number does not increase",
        (_CLAIM, "int(tonumber(earlier or '0') + 1)", "int(1)"),
        tests=f"{_RUNNING}::test_a_strike_delays_the_task_with_a_backoff[valkey-error]",
    ),
    mutant(
        "report-twice",
        "a report that is sent again after a lost reply writes its events twice",
        (f"{LUA}/report.lua", "if number == 0 or number > last then", "if true then"),
        tests=f"{_RUNNING}::test_a_repeated_report_writes_no_event_twice[valkey]",
    ),
)

_TIME = (
    mutant(
        "lease-in-wall-time",
        "leases expire by the wall clock, so a clock step or an outage ends them",
        (
            _TICK,
            "add_meta('lease_clock', lease_clock - before)",
            "set_meta('lease_clock', NOW, int(NOW))",
        ),
        tests=f"{_HOUSEKEEPING}::test_a_silent_holder_loses_its_lease_after_an_outage[valkey]",
    ),
    mutant(
        "reap-without-grace",
        "after an outage, a lease that was nearly over ends before its holder has time to renew it",
        (
            _TICK,
            "return lease_clock, LeaseClock.leases_end(lease_clock, new_grace)",
            "return lease_clock, true",
        ),
        tests=f"{_HOUSEKEEPING}::test_a_holder_can_renew_its_lease_after_an_outage[valkey]",
    ),
    mutant(
        "grace-forever",
        "late ticks extend the grace period forever, so a dead leader keeps its task",
        (_LEASE_CLOCK, " and clock >= grace", ""),
        tests=f"{_HOUSEKEEPING}::test_a_silent_holder_loses_its_lease_after_an_outage[valkey]",
    ),
    mutant(
        "outage-on-the-lease-clock",
        "the lease clock counts an outage, so live leases expire right after it",
        (_LEASE_CLOCK, "math.min(silence, LEASE_STEP_MS)", "silence"),
        tests=f"{_HOUSEKEEPING}::test_an_outage_ends_no_lease[valkey]",
    ),
    mutant(
        "renew-extends-nothing",
        "a leader loses its lease although it renews",
        (
            f"{LUA}/renew.lua",
            "int(meta('lease_clock') + tonumber(a.lease_ms))",
            "int(meta('lease_clock') + 1)",
        ),
        tests=f"{_RUNNING}::test_a_leader_that_renews_keeps_its_task[valkey]",
    ),
    mutant(
        "leases-never-reaped",
        "a dead leader keeps its task",
        (_TICK, "ipairs(leases_expire and due(K_leases, lease_clock) or {})", "ipairs({})"),
        tests=f"{_RUNNING}::test_a_strike_delays_the_task_with_a_backoff[valkey-lapse]",
    ),
    mutant(
        "run-deadline-ignored",
        "a task may run forever",
        (_ATTEMPT, "return r.run_by and NOW >= tonumber(r.run_by)", "return false"),
        tests=f"{_RUNNING}::test_a_task_past_its_run_deadline_expires_without_a_strike[valkey-error]",
    ),
    mutant(
        "start-deadline-ignored",
        "a task starts after its start deadline",
        (_QUEUE, "  if at then zput(K_timers, r.id, at) end", ""),
        tests=f"{_WAITING}::test_a_tick_expires_a_task_past_its_start_deadline",
    ),
    mutant(
        "backoff-ignored",
        "a failed task is retried at once",
        (_ATTEMPT, "local wait = backoff_ms(strikes, token)", "local wait = 0"),
        tests=f"{_RUNNING}::test_a_strike_delays_the_task_with_a_backoff[valkey-error]",
    ),
    mutant(
        "retention-of-running",
        "retention can delete a running task",
        (f"{LUA}/delete.lua", "if not TERMINAL[r.state] then return -1 end", ""),
        tests=f"{_FACES}::test_a_preview_is_replaced_and_only_an_ended_task_is_deleted[valkey]",
    ),
    mutant(
        "retention-begins-at-claim",
        "retention counts from the start of a task, so a long task is swept while it runs",
        (
            _CLAIM,
            "  zput(K_leases, r.id, lease)",
            "  zput(K_leases, r.id, lease)\n  zput(K_expiring, r.id, int(NOW))",
        ),
        tests=f"{_RUNNING}::test_a_leader_that_renews_keeps_its_task[valkey]",
    ),
)

_ENDS = (
    mutant(
        "strike-not-counted",
        "a task that kills its group is retried forever",
        (_ATTEMPT, "  set(r, 'strikes', int(strikes))\n", ""),
        tests=f"{_RUNNING}::test_a_strike_delays_the_task_with_a_backoff[valkey-error]",
    ),
    mutant(
        "dead-letter-missing",
        "a failed task leaves no dead letter",
        (_ATTEMPT, "  zput(K_dead, r.id, NOW_TEXT)\n", ""),
        tests=f"{_RUNNING}::test_the_last_strike_fails_the_task[valkey-error]",
    ),
    mutant(
        "cancel-loses-to-finish",
        "a task ends as succeeded although it had been cancelled before",
        (
            _SETTLE,
            "if r.cancel_at then end_failed_attempt(r, {}) else finish_succeeded(r, s.artifacts, s.described) end",
            "finish_succeeded(r, s.artifacts, s.described)",
        ),
        tests=f"{_RUNNING}::test_a_requested_cancel_wins[valkey-finish]",
    ),
    mutant(
        "cancel-not-reported",
        "a leader does not learn that its task was cancelled",
        (_ATTEMPT, "  if r.cancel_at then bits = bits + CANCEL end\n", ""),
        tests=f"{_RUNNING}::test_a_running_task_is_cancelled_when_its_group_stops[valkey]",
    ),
    mutant(
        "terminal-still-live",
        "an ended task still counts as live, so the cluster never scales to zero",
        (_ATTEMPT, "  zdrop(K_live, r.id)\n", ""),
        tests=f"{_RUNNING}::test_a_running_task_is_cancelled_when_its_group_stops[valkey]",
    ),
    mutant(
        "release-loses-place",
        "a released task goes to the end of the queue",
        (
            _ATTEMPT,
            "  enqueue(r)\n  arm(r)\nend\n\n-- The tasks that the store has",
            "  set(r, 'order', int(r.order + 1000))\n  enqueue(r)\n  arm(r)\nend\n\n-- The tasks that the store has",
        ),
        tests=f"{_RUNNING}::test_a_release_keeps_place_and_checkpoint[valkey-release]",
    ),
    mutant(
        "releases-unbounded",
        "a task is released and claimed forever",
        (_ATTEMPT, "if releases > RELEASES_MAX then", "if false then"),
        tests=f"{_RUNNING}::test_a_task_released_too_often_gets_a_strike[valkey]",
    ),
    mutant(
        "group-failures-unbounded",
        "a task breaks one group after another and never gets a strike",
        (_ATTEMPT, "if group_failed and failures >= GROUP_FAILURES_MAX then", "if false then"),
        tests=f"{_RUNNING}::test_repeated_failures_of_its_group_give_a_task_strikes[valkey-deregister]",
    ),
)

_QUEUES = (
    mutant(
        "idempotency-not-stored",
        "the same key creates a second task",
        (_SUBMIT, "    call('SET', k_idempotency(s.idempotency_hash), s.task .. ' ' .. s.body_hash)\n", ""),
        tests=f"{_WAITING}::test_an_idempotency_key_with_the_same_body_finds_its_task[valkey]",
    ),
    mutant(
        "same-id-twice",
        "a repeated submit restarts its task",
        (
            _SUBMIT,
            "if tasks[s.task] or (not all_new and call('EXISTS', k_task(s.task)) == 1) then return known(s.task) end",
            "",
        ),
        tests=f"{_PROMISES}::test_a_submit_sent_again_changes_nothing[valkey]",
    ),
    mutant(
        "full-queue-accepts",
        "the queue accepts more tasks than its limit",
        (_SUBMIT, "if waiting_now >= max_queued then return { 'full' } end", ""),
        tests=f"{_WAITING}::test_a_full_queue_refuses_submits[valkey]",
    ),
    mutant(
        "submit-despite-oom",
        "a submit takes the memory that running tasks need to end",
        (_SUBMIT, "#!lua\n", "#!lua flags=allow-oom\n"),
        tests=f"{_LOAD}::test_a_full_server_refuses_only_new_tasks[valkey]",
    ),
    mutant(
        "settle-refused-when-full",
        "a running task cannot end while the memory is full",
        (_SETTLE, "#!lua flags=allow-oom\n", "#!lua\n"),
        tests=f"{_LOAD}::test_a_full_server_refuses_only_new_tasks[valkey]",
    ),
    mutant(
        "charge-never-corrected",
        "a tenant pays the estimate instead of the time used",
        (_ATTEMPT, "  charge(t, all / 1000 / t.weight - tonumber(r.charge))\n", ""),
        tests=f"{_RUNNING}::test_a_finish_publishes_artifacts_and_usage[valkey]",
    ),
    mutant(
        "fair-by-count",
        "fair shares count tasks instead of seconds",
        (
            _ATTEMPT,
            "charge(t, all / 1000 / t.weight - tonumber(r.charge))",
            "charge(t, 1 / t.weight - tonumber(r.charge))",
        ),
        tests=f"{_PROMISES}::test_fair_shares_count_gpu_seconds_not_tasks[valkey]",
    ),
    mutant(
        "idle-tenant-saves-up",
        "a tenant that returns after a long idle time starves the others",
        (_QUEUE, "    t.share = math.max(t.share, meta('vtime'))\n", ""),
        tests=f"{_LOAD}::test_an_idle_tenant_saves_up_no_share[valkey]",
    ),
    mutant(
        "drain-mark-ignored",
        "a draining group still claims tasks",
        (_CLAIM, "if c.draining == '1' or g.drain then return", "if c.draining == '1' then return"),
        tests=f"{_WAITING}::test_a_draining_group_claims_nothing",
    ),
    mutant(
        "wakeup-not-passed-on",
        "of two waiting leaders, the second does not wake up for the second task",
        (
            _QUEUE,
            "for _ = 1, math.min(wakeups, WAKEUPS_MAX - present) do",
            "for _ = 1, math.min(wakeups, 1 - present) do",
        ),
        (_QUEUE, "  if wakeups > 0 or recheck then", "  if wakeups > 0 then"),
        tests=f"{_PROMISES}::test_two_tasks_wake_two_waiting_leaders[valkey]",
    ),
)

_EVENTS = (
    mutant(
        "two-xadds",
        "an event has different ids in the pool's stream and in the task's stream",
        (
            _HISTORY,
            "  push[#push + 1] = entry(announce(r, kind, data), kind,",
            "  announce(r, kind, data)\n  push[#push + 1] = entry(NOW_TEXT .. '-0', kind,",
        ),
        tests=f"{_PROMISES}::test_an_event_has_the_same_id_in_both_streams[valkey]",
    ),
    mutant(
        "event-not-in-pool-stream",
        "a control plane that reads the pool's stream does not see how a task ended",
        (_HISTORY, "return call('XADD', K_events, ", "return call('XADD', k_ev(r.id) .. ':x', "),
        tests=f"{_PROMISES}::test_an_event_has_the_same_id_in_both_streams[valkey]",
    ),
    mutant(
        "live-stream-trimmed",
        "the pool's stream keeps only 500 events, so a burst removes events that a reader still needs",
        (_LIMITS, "EVENTS_MAX = 1_000_000", "EVENTS_MAX = 500"),
        tests=f"{_PROMISES}::test_a_burst_of_events_trims_nothing[valkey]",
    ),
    mutant(
        "task-stream-trimmed",
        "a task's own stream keeps only 100 events",
        (_LIMITS, "EV_MAX = 1_000", "EV_MAX = 100"),
        tests=f"{_FACES}::test_a_reader_learns_that_older_events_were_trimmed[valkey]",
    ),
    mutant(
        "trim-not-reported",
        "a reader that starts at the beginning does not learn that events were trimmed",
        (_HISTORY, "    set(r, 'trimmed', '1')\n", ""),
        tests=f"{_FACES}::test_a_reader_learns_that_older_events_were_trimmed[valkey]",
    ),
    mutant(
        "first-start-forgotten",
        "a trimmed stream loses the event of the first start",
        (_HISTORY, "    push[#push + 1] = started_entry(r)\n", ""),
        tests=f"{_PROMISES}::test_an_event_has_the_same_id_in_both_streams[valkey]",
    ),
    mutant(
        "resume-repeats",
        "a reader that resumes after an event gets it again",
        (f"{LUA}/events.lua", "(a_ms == b_ms and a_seq > b_seq)", "(a_ms == b_ms and a_seq >= b_seq)"),
        tests=f"{_FACES}::test_a_tasks_events_are_read_without_a_gap[valkey]",
    ),
)

STORE: tuple[Mutant, ...] = (*_FENCES, *_TIME, *_ENDS, *_QUEUES, *_EVENTS)
