"""Bugs in the registry of workers and models, and in the manager that places models."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_REGISTRY = f"{SERVER}/adapters/redis/registry"
_LUA = f"{_REGISTRY}/registry.lua"
_MANAGER = f"{SERVER}/model_placement"
_STORE = f"{TESTS}/store/registry"

REGISTRY: tuple[Mutant, ...] = (
    mutant(
        "two-workers-one-id",
        "a second worker takes the id of one that is alive, and requests go to the wrong machine",
        (_LUA, "and lease_end and not is_over(lease_end) then", "and false then"),
        tests=f"{_STORE}/test_workers.py::test_an_id_that_another_worker_has_is_refused_with_the_reason",
    ),
    mutant(
        "replaced-worker-speaks",
        "the old process of a restarted worker still reports replicas that nobody can reach",
        (_LUA, "if stored[1] ~= incarnation then return { 'taken', stored[2] } end", ""),
        tests=f"{_STORE}/test_workers.py::test_a_restarted_worker_replaces_itself",
    ),
    mutant(
        "outage-ends-workers",
        "after an outage of Redis, all workers are lost before they can send a heartbeat",
        (_LUA, "return LeaseClock.leases_end(lease_clock(), meta('grace')) end", "return true end"),
        tests=f"{_STORE}/test_workers.py::test_an_outage_ends_no_lease",
    ),
    mutant(
        "outage-makes-idle",
        "after an outage of Redis, models that are in use are stopped",
        (
            _LUA,
            "int(math.max(0, clock - tonumber(last[i + 1])))",
            "int(math.max(0, NOW - tonumber(last[i + 1])))",
        ),
        (_LUA, "local now = int(lease_clock())", "local now = int(NOW)"),
        tests=f"{_STORE}/test_demand.py::test_an_outage_makes_no_model_idle",
    ),
    mutant(
        "frozen-manager-plans",
        "a manager that was frozen replaces the plan of its successor with its own old plan",
        (_LUA, "if holder_of_placement() ~= holder then return 0 end", ""),
        tests=f"{_STORE}/test_manager_lease.py::test_only_the_holder_changes_the_plan",
    ),
    mutant(
        "equal-managers-fight",
        "the managers of two gateways take the lease from each other at each round",
        (_LUA, "and of >= tonumber(priority) then", "and of > tonumber(priority) then"),
        tests=f"{_STORE}/test_manager_lease.py::test_the_first_one_has_the_lease_as_long_as_it_renews_it",
    ),
    mutant(
        "silent-heartbeat",
        "a replica that becomes ready is seen only with the next tick",
        (_LUA, "changed = stored[3] ~= summary", "changed = false"),
        tests=f"{_STORE}/test_changes.py::test_a_wait_ends_at_once_with_a_change",
        waits=True,
    ),
    mutant(
        "wait-outlasts-lease",
        "a manager waits half a minute for a frozen server, and loses its lease",
        (f"{_REGISTRY}/store.py", "asyncio.wait_for(read, block_s + self._timeout_s)", "read"),
        tests=f"{_STORE}/test_changes.py::test_a_wait_at_a_frozen_server_fails_soon",
    ),
    mutant(
        "newer-record-is-fatal",
        "during an update, one record that a newer gateway wrote stops all older gateways",
        (
            f"{_REGISTRY}/codec.py",
            "for name, value in data.items() if name in names}",
            "for name, value in data.items()}",
        ),
        tests=f"{_STORE}/test_models.py::test_records_of_a_newer_version_can_be_read",
    ),
    mutant(
        "lost-replica-wants-worker",
        "a replica that is wanted only because a worker has loaded it asks for another worker when its worker is lost",
        (f"{_MANAGER}/plan.py", "if still_wanted != wanted:", "if False:"),
        tests=f"{TESTS}/model_placement/test_plan.py::test_a_replica_that_was_lost_and_that_nobody_needs_asks_for_no_worker",
    ),
    mutant(
        "wake-begins-again",
        "the ETA of a model that loads never comes closer",
        (
            f"{_MANAGER}/plan.py",
            "since_ms=view.now_ms if before.since_ms is None else before.since_ms",
            "since_ms=view.now_ms",
        ),
        tests=f"{TESTS}/model_placement/test_plan.py",
    ),
    mutant(
        "deleted-model-is-cut-off",
        "a deleted model is removed while its replicas answer requests",
        (f"{_MANAGER}/plan.py", "if model.deleted and alias not in held]", "if model.deleted]"),
        tests=f"{TESTS}/model_placement/test_manager.py::test_a_deleted_model_drains_and_is_removed",
    ),
    mutant(
        "lease-outlives-manager",
        "a manager that ends keeps its lease, and no other manager plans until the lease ends",
        (
            f"{_MANAGER}/manager.py",
            "        finally:\n            await self._give_back()",
            "        finally:\n            pass",
        ),
        tests=f"{TESTS}/model_placement/test_manager.py::test_a_manager_that_ends_gives_the_lease_back",
    ),
)
