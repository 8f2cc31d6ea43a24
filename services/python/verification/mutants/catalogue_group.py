"""Bugs in groups: decisions, checkpoints, artifacts, leases, files."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_SINGLE_RANK = f"{TESTS}/engines/test_single_rank.py"
_WATCHDOG, _WATCHDOG_LOOP = f"{TESTS}/engines/test_watchdog.py", f"{TESTS}/engines/test_watchdog_loop.py"
_CONSENSUS = f"{TESTS}/engines/test_consensus.py"
_PROMISES = f"{TESTS}/engines/test_promises.py"
_DENOISE = f"{TESTS}/video/test_denoise.py"
_LOCAL = f"{SERVER}/adapters/blobs/local.py"

GROUP: tuple[Mutant, ...] = (
    mutant(
        "cancel-on-one-rank",
        "the leader stops, while the other ranks enter a collective that it never joins",
        (
            f"{SERVER}/engines/tasks/attempt.py",
            "        self._control_group.announce(decision)\n",
            "        stop = decision is GroupDecision.STOP\n"
            "        self._control_group.announce(GroupDecision.CONTINUE if stop else decision)\n",
        ),
        tests=f"{_PROMISES}::test_all_ranks_get_the_same_decision",
    ),
    mutant(
        "ranks-apart-continue",
        "the group continues although its ranks are at different steps",
        (f"{SERVER}/engines/ranks/consensus.py", "if not same or first.status", "if first.status"),
        tests=_CONSENSUS,
    ),
    mutant(
        "stale-continues",
        "a leader continues although its task now belongs to another group",
        (
            f"{SERVER}/engines/ranks/consensus.py",
            "if control & Control.STALE:",
            "if control & Control.STALE and release:",
        ),
        tests=_CONSENSUS,
    ),
    mutant(
        "artifact-before-upload",
        "a task succeeds before its files are uploaded",
        (
            f"{SERVER}/engines/common/artifacts.py",
            "for sent in _upload(blobs, key, draft):",
            "for sent in [draft.path.stat().st_size]:",
        ),
        tests=f"{_SINGLE_RANK}::test_an_echo_task_runs_to_its_artifact",
    ),
    mutant(
        "failed-upload-is-success",
        "a task succeeds although its file was not stored",
        (
            f"{SERVER}/engines/tasks/attempt.py",
            'return Failed(code="artifact_store", message=f"an artifact could not be stored: {exc}")',
            "_log.warning(exc)",
        ),
        tests=f"{_SINGLE_RANK}::test_a_file_that_cannot_be_stored_is_a_strike",
    ),
    mutant(
        "hash-of-something-else",
        "an artifact's SHA-256 covers only the first MiB of each part",
        (
            f"{SERVER}/engines/common/artifacts.py",
            "digest.update(source.read(sent - size))",
            "digest.update(source.read(sent - size)[: 1 << 20])",
        ),
        tests=f"{_PROMISES}::test_the_hash_of_an_artifact_covers_all_its_parts",
    ),
    mutant(
        "discard-deletes-other-attempts",
        "a leader that lost its task deletes the files of all attempts",
        (
            f"{SERVER}/engines/common/artifacts.py",
            "blobs.delete(attempt_prefix(lease))",
            'blobs.delete(f"{lease.task}/")',
        ),
        tests=f"{_PROMISES}::test_a_leader_that_lost_its_task_removes_only_its_own_files",
    ),
    mutant(
        "no-checkpoint-on-drain",
        "a draining group releases its task without a checkpoint",
        (
            f"{SERVER}/engines/tasks/attempt.py",
            "            if decision is GroupDecision.RELEASE:\n"
            "                self._final_checkpoint(step)\n            elif",
            "            if",
        ),
        tests=f"{_SINGLE_RANK}::test_a_drain_mark_releases_the_task_with_a_checkpoint_until_it_is_removed",
    ),
    mutant(
        "resume-ignored",
        "a released task starts from the beginning",
        (
            f"{SERVER}/engines/tasks/attempt.py",
            "        if checkpoint is None:\n            return None\n",
            "        return None\n",
        ),
        tests=f"{_SINGLE_RANK}::test_a_drain_mark_releases_the_task_with_a_checkpoint_until_it_is_removed",
    ),
    mutant(
        "foreign-checkpoint-accepted",
        "a task resumes from a snapshot that was made with other parameters",
        (
            f"{SERVER}/workloads/video/pipeline/snapshot.py",
            'if state["fingerprint"] != fingerprint:',
            "if not fingerprint:",
        ),
        tests=f"{_DENOISE}::test_a_run_with_an_unusable_snapshot_starts_at_step_zero",
    ),
    mutant(
        "seed-ignored-on-resume",
        "a resumed run draws new noise, so it gives another video",
        (
            f"{SERVER}/workloads/video/pipeline/denoise.py",
            "            self._restore(resume)\n",
            "            self._restore(resume)\n"
            "            self.latents, self.rng = initial(model, params, seed + 1)\n",
        ),
        tests=f"{_DENOISE}::test_a_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one[2]",
    ),
    mutant(
        "stall-not-seen",
        "a step that hangs keeps its lease forever",
        (
            f"{SERVER}/engines/common/heartbeat.py",
            "        if silent_s <= limit_s:\n",
            "        if silent_s <= limit_s + 1e9:\n",
        ),
        tests=f"{_PROMISES}::test_a_heartbeat_reports_a_stall_after_its_limit",
    ),
    mutant(
        "watchdog-tries-once",
        "after an outage, the watchdog waits half a lease before it renews the lease, which may have expired by then",
        (f"{SERVER}/engines/common/watchdog_process.py", "                self._renewed_at = now\n", ""),
        (
            f"{SERVER}/engines/common/watchdog_process.py",
            "                if self._queue.renew(lease) & Control.STALE:",
            "                self._renewed_at = now\n                if self._queue.renew(lease) & Control.STALE:",
        ),
        tests=f"{_WATCHDOG_LOOP}::test_a_watchdog_tries_again_at_its_next_poll",
    ),
    mutant(
        "lease-from-the-reply",
        "a late reply makes the lease look newer than it is, so the watchdog acts too late",
        (
            f"{SERVER}/engines/common/lease_renewer.py",
            "self._renewed_at = max(self._renewed_at, sent_at)",
            "self._renewed_at = time.monotonic()",
        ),
        tests=f"{_WATCHDOG_LOOP}::test_a_lease_runs_from_the_request_not_from_the_reply",
    ),
    mutant(
        "watchdog-renews-a-stalled-leader",
        "the watchdog renews the lease of a stalled leader",
        (f"{SERVER}/engines/common/watchdog_process.py", "_MARGIN_S = 3.0", "_MARGIN_S = 3e9"),
        tests=f"{_WATCHDOG}::test_a_step_that_holds_the_lock_forever_is_a_strike_and_its_process_is_killed",
        waits=True,
    ),
    mutant(
        "watchdog-ends-first",
        "a leader that is killed while it deregisters leaves a group that looks idle until its record expires",
        (
            f"{SERVER}/engines/ranks/rank_lifecycle.py",
            "        lease_renewer.stop()\n        with",
            "        lease_renewer.stop()\n        lease_renewer.stop_watchdog()\n        with",
        ),
        tests=f"{_WATCHDOG}::test_a_broken_leader_that_is_killed_before_it_deregisters_leaves_no_record",
        waits=True,
    ),
    mutant(
        "artifact-of-a-growing-file",
        "the stored bytes of a file that is still being written do not match its SHA-256",
        (f"{SERVER}/engines/common/artifacts.py", "if _file_state(draft.path) != state:", "if False:"),
        tests=f"{TESTS}/engines/test_promises.py::test_a_file_that_is_still_being_written_is_not_an_artifact",
    ),
    mutant(
        "missing-fsync-of-bytes",
        "a file is published before its bytes are on the disk",
        (_LOCAL, "        yield 0\n    os.fsync(writer)\n", "        yield 0\n"),
        tests=f"{TESTS}/blobs/test_durable.py",
    ),
    mutant(
        "missing-fsync-of-folder",
        "an upload returns before the file's name is on the disk",
        (_LOCAL, "                        os.fsync(descriptor)\n", "                        pass\n"),
        tests=f"{TESTS}/blobs/test_durable.py",
    ),
    mutant(
        "upload-in-place",
        "readers can see an incomplete file under its final name",
        (_LOCAL, 'part = f"~part-{secrets.token_hex(8)}"', "part = parts[-1]"),
        tests=f"{TESTS}/blobs/test_contract.py::test_of_two_concurrent_uploads_the_first_to_finish_wins[local-100]",
    ),
)
