"""Bugs in what a group does: agreement, checkpoints, artifacts, files."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_ALONE = f"{TESTS}/engines/test_single_rank.py"
_GUARD = f"{TESTS}/engines/test_watchdog.py"
_VERDICT = f"{TESTS}/engines/test_consensus.py"
_PROMISES = f"{TESTS}/engines/test_promises.py"
_DENOISE = f"{TESTS}/video/test_denoise.py"
_LOCAL = f"{SERVER}/adapters/blobs/local.py"

GROUP: tuple[Mutant, ...] = (
    mutant(
        "cancel-on-one-rank",
        "the leader stops, and the other ranks go on into a collective that nobody joins",
        (
            f"{SERVER}/engines/gang/attempt.py",
            "        self._control_group.tell(verdict)\n",
            "        self._control_group.tell(Verdict.GO_ON if verdict is Verdict.STOP else verdict)\n",
        ),
        tests=f"{_PROMISES}::test_all_ranks_hear_one_verdict",
    ),
    mutant(
        "ranks-apart-go-on",
        "ranks that are at different places do not break the group",
        (f"{SERVER}/engines/gang/consensus.py", "if not same or first.status", "if first.status"),
        tests=_VERDICT,
    ),
    mutant(
        "stale-goes-on",
        "a worker whose task is another's goes on with it",
        (
            f"{SERVER}/engines/gang/consensus.py",
            "if control & Control.STALE:",
            "if control & Control.STALE and release:",
        ),
        tests=_VERDICT,
    ),
    mutant(
        "artifact-before-upload",
        "success is told before the files are there",
        (
            f"{SERVER}/engines/rank/artifacts.py",
            "for sent in _upload(blobs, key, draft):",
            "for sent in [draft.path.stat().st_size]:",
        ),
        tests=f"{_ALONE}::test_an_echo_task_runs_to_its_artifact",
    ),
    mutant(
        "failed-upload-is-success",
        "a task whose file could not be stored succeeds",
        (
            f"{SERVER}/engines/gang/attempt.py",
            'return Failed(code="artifact_store", message=f"an artifact could not be stored: {exc}")',
            "_log.warning(exc)",
        ),
        tests=f"{_ALONE}::test_files_that_cannot_be_stored_are_a_strike",
    ),
    mutant(
        "hash-of-something-else",
        "an artifact's SHA-256 is that of the first MiB of each part",
        (
            f"{SERVER}/engines/rank/artifacts.py",
            "digest.update(source.read(sent - size))",
            "digest.update(source.read(sent - size)[: 1 << 20])",
        ),
        tests=f"{_PROMISES}::test_the_sum_of_a_file_of_many_parts",
    ),
    mutant(
        "discard-takes-the-heirs-files",
        "a worker that lost its task removes the files of all attempts",
        (
            f"{SERVER}/engines/rank/artifacts.py",
            "blobs.delete(attempt_prefix(lease))",
            'blobs.delete(f"{lease.task}/")',
        ),
        tests=f"{_PROMISES}::test_a_loser_removes_its_own_files_only",
    ),
    mutant(
        "no-checkpoint-on-drain",
        "a group that is told to go hands the work back without its state",
        (
            f"{SERVER}/engines/gang/attempt.py",
            "            if verdict is Verdict.RELEASE:\n"
            "                self._final_checkpoint(step)\n            elif",
            "            if",
        ),
        tests=f"{_ALONE}::test_a_drain_mark_hands_back_with_a_checkpoint_until_it_is_taken_away",
    ),
    mutant(
        "resume-ignored",
        "a task that was handed back begins anew",
        (
            f"{SERVER}/engines/gang/attempt.py",
            "        if checkpoint is None:\n            return None\n",
            "        return None\n",
        ),
        tests=f"{_ALONE}::test_a_drain_mark_hands_back_with_a_checkpoint_until_it_is_taken_away",
    ),
    mutant(
        "foreign-checkpoint-accepted",
        "a snapshot of other parameters is taken up",
        (
            f"{SERVER}/workloads/video/pipeline/snapshot.py",
            'if state["fingerprint"] != fingerprint:',
            "if not fingerprint:",
        ),
        tests=f"{_DENOISE}::test_bad_snapshots_start_at_zero",
    ),
    mutant(
        "seed-ignored-on-resume",
        "a run that is taken up draws its noise anew, and is another video",
        (
            f"{SERVER}/workloads/video/pipeline/denoise.py",
            "            self._restore(resume)\n",
            "            self._restore(resume)\n"
            "            self.latents, self.rng = initial(model, params, seed + 1)\n",
        ),
        tests=f"{_DENOISE}::test_resume_equals_uninterrupted[2]",
    ),
    mutant(
        "stall-not-seen",
        "a step that hangs keeps its lease for ever",
        (
            f"{SERVER}/engines/rank/heartbeat.py",
            "        if silent <= limit:\n",
            "        if silent <= limit + 1e9:\n",
        ),
        tests=f"{_PROMISES}::test_a_pulse_says_when_it_is_a_stall",
    ),
    mutant(
        "watchdog-tries-once",
        "after an outage the watchdog renews only half a lease later, when the lease may be over",
        (f"{SERVER}/engines/rank/watchdog.py", "                self._renewed = now\n", ""),
        (
            f"{SERVER}/engines/rank/watchdog.py",
            "                if self._queue.renew(lease) & Control.STALE:",
            "                self._renewed = now\n                if self._queue.renew(lease) & Control.STALE:",
        ),
        tests=f"{_GUARD}::test_a_guard_tries_again_at_its_next_look",
    ),
    mutant(
        "lease-from-the-answer",
        "an answer that is heard late makes the lease look newer than it is, so that the watchdog comes too late",
        (
            f"{SERVER}/engines/rank/lease_renewer.py",
            "self._renewed = max(self._renewed, asked)",
            "self._renewed = time.monotonic()",
        ),
        tests=f"{_GUARD}::test_a_lease_runs_from_the_question_not_from_the_answer",
    ),
    mutant(
        "watchdog-renews-a-stalled-leader",
        "the watchdog keeps the lease of a leader that has not advanced for too long",
        (f"{SERVER}/engines/rank/watchdog.py", "_MARGIN_S = 3.0", "_MARGIN_S = 3e9"),
        tests=f"{_GUARD}::test_a_step_that_holds_the_lock_for_ever_is_a_strike_and_its_process_is_killed",
    ),
    mutant(
        "artifact-of-a-growing-file",
        "what is stored of a file that is still being written is not what its SHA-256 says",
        (f"{SERVER}/engines/rank/artifacts.py", "if _state(draft.path) != was:", "if False:"),
        tests=f"{TESTS}/engines/test_promises.py::test_a_file_that_is_still_being_written_is_no_artifact",
    ),
    mutant(
        "missing-fsync-of-bytes",
        "a file is published before its bytes are on the disk",
        (_LOCAL, "        yield 0\n    os.fsync(writer)\n", "        yield 0\n"),
        tests=f"{TESTS}/blobs/test_durable.py",
    ),
    mutant(
        "missing-fsync-of-folder",
        "a file's name is not on the disk when the upload says so",
        (_LOCAL, "                        os.fsync(descriptor)\n", "                        pass\n"),
        tests=f"{TESTS}/blobs/test_durable.py",
    ),
    mutant(
        "upload-in-place",
        "a file that is not whole can be read under its name",
        (_LOCAL, 'part = f"~part-{secrets.token_hex(8)}"', "part = parts[-1]"),
        tests=f"{TESTS}/blobs/test_contract.py::test_of_two_uploads_under_way_the_first_to_end_wins[local-100]",
    ),
)
