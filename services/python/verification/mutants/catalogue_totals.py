"""Bugs in the totals of a pool: in what Redis counts, in what gateways read from Redis, and in the metrics."""

from __future__ import annotations

from verification.mutants.mutant import LUA, SERVER, TESTS, Mutant, mutant

_TESTS = f"{TESTS}/store/test_totals.py"
_TOTALS, _UNIT_OF_WORK, _CLAIM = (f"{LUA}/_{name}.lua" for name in ("totals", "unit_of_work", "claim"))

TOTALS: tuple[Mutant, ...] = (
    mutant(
        "total-is-overwritten",
        "a total holds only what the last call counted, so it may fall",
        (
            _UNIT_OF_WORK,
            "call('HINCRBY', K_totals, name, int(amount))",
            "call('HSET', K_totals, name, int(amount))",
        ),
        tests=f"{_TESTS}::test_ends_strikes_and_releases_are_counted_by_reason",
    ),
    mutant(
        "totals-written-at-each-flush",
        "a script that flushes several times, such as the tick, counts everything several times",
        (_UNIT_OF_WORK, "  end\n  totals = {}\nend", "  end\nend"),
        tests=(
            f"{_TESTS}::test_idle_and_starting_groups_cost_gpu_time_too",
            f"{_TESTS}::test_a_group_that_dies_is_counted_once_and_one_that_leaves_is_not",
        ),
    ),
    mutant(
        "bucket-without-its-bound",
        "an observation that equals the bound of a bucket counts in the next bucket",
        (_TOTALS, "value > bounds[place]", "value >= bounds[place]"),
        tests=f"{_TESTS}::test_the_time_and_steps_until_a_cancelled_task_has_stopped_are_counted",
    ),
    mutant(
        "wait-includes-earlier-attempts",
        "the wait of a task that was released begins at its submit",
        (_CLAIM, "local since = tonumber(r.queued or r.created)", "local since = tonumber(r.created)"),
        tests=f"{_TESTS}::test_a_wait_is_counted_by_its_priority_from_entering_the_queue_to_the_claim",
    ),
    mutant(
        "one-tenant-too-many",
        "one tenant more than `tenants_max` allows has totals of its own",
        (
            _TOTALS,
            "call('HLEN', K_tenant_totals) >= 2 * most",
            "call('HLEN', K_tenant_totals) > 2 * most",
        ),
        tests=f"{_TESTS}::test_however_many_tenants_there_are_their_series_are_bounded",
    ),
    mutant(
        "deleted-tenant-takes-its-time",
        "the GPU time of the pool falls when a tenant is deleted",
        (_TOTALS, "if ms > 0 then call('HINCRBY', K_totals, TOTALS.DELETED .. kind, ms) end", ""),
        tests=f"{_TESTS}::test_a_deleted_tenant_takes_its_series_away_and_leaves_the_pool_its_total",
    ),
    mutant(
        "oldest-wait-from-the-submit",
        "the oldest wait that metrics show includes the run before a release",
        (f"{LUA}/_queue.lua", "PRIORITY_BAND + NOW)", "PRIORITY_BAND + r.created)"),
        tests=f"{TESTS}/store/test_oldest_wait.py::test_the_oldest_wait_of_a_released_task_begins_with_its_release",
    ),
    mutant(
        "waste-counts-as-used-too",
        "a GPU-second of a cancelled or failed task counts as used and also as wasted",
        (
            f"{SERVER}/domain/pool_totals.py",
            '(self.total("used_ms") + self.total("serving_ms") - without_result) / 1000',
            '(self.total("used_ms") + self.total("serving_ms")) / 1000',
        ),
        tests=f"{_TESTS}::test_each_gpu_second_is_used_or_wasted_by_one_cause",
    ),
    mutant(
        "checkpointed-time-counts-at-once",
        "time before a checkpoint counts as used although the task may fail later",
        (f"{LUA}/_attempt.lua", "  add_total('pending_ms', ended and -earlier or used)\n", ""),
        tests=f"{_TESTS}::test_time_before_a_checkpoint_counts_when_the_task_ends",
    ),
    mutant(
        "waste-falls-with-the-clock",
        "a clock that is set back after a checkpoint makes wasted GPU time negative",
        (
            f"{LUA}/_attempt.lua",
            "math.min(all, ranks * math.max(0, tonumber(r.ckpt_at) - claimed))",
            "ranks * math.max(0, tonumber(r.ckpt_at) - claimed)",
        ),
        tests=f"{_TESTS}::test_waste_is_not_negative_if_the_clock_is_set_back_after_a_checkpoint",
    ),
    mutant(
        "lost-group-counts-twice",
        "a group counts as lost when it goes silent and once more when its death is reported",
        (f"{LUA}/group.lua", "if state and state ~= 'lost' then", "if state then"),
        tests=f"{_TESTS}::test_a_group_that_dies_is_counted_once_and_one_that_leaves_is_not",
    ),
    mutant(
        "weights-of-an-earlier-version-ignored",
        "fair-share weights count only if this version of Daybreak stored them",
        (f"{LUA}/_queue.lua", "number('equal_weights') ~= 1", "number('equal_weights') == 0"),
        tests=f"{TESTS}/store/test_waiting.py::test_weights_count_that_an_earlier_version_stored",
    ),
    mutant(
        "first-bill-begins-a-series",
        "a tenant has no totals before its first bill, so Prometheus misses that bill",
        (f"{LUA}/submit.lua", "  if t.is_new then t.is_new = not tenant_totals.add(s.tenant) end\n", ""),
        tests=f"{_TESTS}::test_a_tenant_has_totals_of_0_before_its_first_bill",
    ),
)
