"""Bugs in workers (orphans, restarts, registration, drains, causes), and in moves of replicas between workers."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_WORKER = f"{SERVER}/model_worker"
_ORPHANS = f"{TESTS}/model_worker/test_orphans.py"
_AGENT = f"{TESTS}/model_worker/test_agent.py"
_CAUSES = f"{TESTS}/model_worker/test_last_error.py"
_MOVES = f"{TESTS}/model_placement/test_spread.py"
_SPREAD = f"{SERVER}/domain/spread.py"

WORKER: tuple[Mutant, ...] = (
    mutant(
        "guardian-adopts-nobody",
        "a process that an engine started, and that left the engine's session, survives the engine",
        (f"{_WORKER}/guardian.py", "process_tree.become_subreaper()", "pass"),
        tests=f"{_ORPHANS}::test_an_engine_that_dies_takes_what_it_has_started_with_it",
    ),
    mutant(
        "guardian-outlives-worker",
        "a guardian does not notice that its worker was killed",
        (f"{_WORKER}/guardian.py", "elif not os.read(_STDIN, 4096):", "elif False:"),
        tests=f"{_ORPHANS}::test_a_worker_that_is_killed_leaves_no_process",
    ),
    mutant(
        "strays-stay",
        "when a guardian is killed, processes of its engine survive",
        (f"{_WORKER}/engine_process.py", "            if code < 0:\n", "            if False:\n"),
        tests=f"{_ORPHANS}::test_a_guardian_that_is_killed_takes_its_engine_with_it",
    ),
    mutant(
        "unknown-worker-stays-unknown",
        "a worker that its gateway has forgotten never registers again",
        (f"{_WORKER}/gateway_client.py", "if status == 404:", "if status == 410:"),
        tests=f"{_AGENT}::test_a_gateway_that_forgets_a_worker_gets_a_new_registration_and_no_engine_restarts",
    ),
    mutant(
        "outage-stops-models",
        "a worker stops its models while its gateway cannot be reached",
        (
            f"{_WORKER}/agent.py",
            "            except GatewayUnavailableError as exc:\n",
            "            except GatewayUnavailableError as exc:\n                self._supervisor.apply([])\n",
        ),
        tests=f"{_AGENT}::test_what_runs_keeps_running_while_there_is_no_gateway",
    ),
    mutant(
        "drain-cuts-requests",
        "a model that is no longer wanted stops before its requests have ended",
        (f"{_WORKER}/supervisor.py", "                await replica.idle()\n", "                pass\n"),
        tests=f"{_AGENT}::test_requests_end_before_a_model_or_the_worker_stops",
    ),
    mutant(
        "gpu-shared-while-leaving",
        "a replica starts on a GPU that another one has not left yet",
        (
            f"{_WORKER}/supervisor.py",
            "lambda: not any(replica in self._running for replica in leaving)",
            "lambda: True",
        ),
        tests=f"{_AGENT}::test_a_replica_starts_once_its_gpu_is_free",
    ),
    mutant(
        "settings-leak-to-engines",
        "an engine gets the token of the worker in its environment",
        (f"{SERVER}/settings/tree.py", "if not name.startswith(VARIABLES)}", "if name}"),
        tests=f"{_AGENT}::test_an_engine_does_not_get_the_settings_of_the_worker",
    ),
    mutant(
        "last-line-for-cause",
        "an engine that ended is reported with its last log line, even if that line only refers to another line",
        (f"{_WORKER}/last_error.py", " and not _POINTER.search(line)", ""),
        tests=f"{_CAUSES}::test_the_line_with_the_cause_is_preferred_to_lines_that_refer_to_it",
    ),
    mutant(
        "cause-shows-secrets",
        "the report of why an engine ended shows the values of secrets",
        (f"{_WORKER}/last_error.py", "        line = line.replace(secret, HIDDEN)\n", "        pass\n"),
        tests=f"{_CAUSES}::test_secrets_of_the_environment_and_passwords_in_urls_are_hidden",
    ),
    mutant(
        "move-costs-a-replica",
        "a ready replica moves away while another one is missing",
        (_SPREAD, "ready - 1 < wanted", "ready < wanted"),
        tests=f"{_MOVES}::test_no_ready_replica_leaves_while_another_one_is_missing",
    ),
    mutant(
        "failed-move-tried-at-once",
        "a move whose replica failed is tried again without a longer wait, however often it failed",
        (_SPREAD, "SPREAD_AFTER_MS << min(move.failures, _MAX_DOUBLINGS)", "SPREAD_AFTER_MS"),
        tests=f"{_MOVES}::test_a_new_replica_that_fails_ends_the_move_and_the_next_try_comes_later",
    ),
    mutant(
        "move-takes-needed-room",
        "the new replica of a move keeps memory that a wanted replica needs",
        (_SPREAD, " and fits(models, machines, replicas, new)", ""),
        tests=f"{_MOVES}::test_a_model_that_needs_the_room_gets_it_at_once",
    ),
)
