"""Bugs in streaming sessions: their journal, and the groups that serve them."""

from __future__ import annotations

from verification.mutants.mutant import LUA, SERVER, TESTS, Mutant, mutant

_STORE = f"{TESTS}/store/sessions/test_sessions.py"
_IDLE = f"{TESTS}/store/sessions/test_idle_sessions.py"
_TABLE = f"{TESTS}/engines/sessions/test_session_table.py"
_WAKEUPS = f"{TESTS}/store/sessions/test_session_wakeups.py"
_WATCHES = f"{TESTS}/store/sessions/test_session_watches.py"
_INTAKE = f"{TESTS}/store/sessions/test_session_intake.py"
_ENGINE = f"{SERVER}/engines/sessions"
_METRICS = f"{TESTS}/engines/sessions/test_session_metrics.py"
_TOTALS = f"{TESTS}/store/sessions/test_session_totals.py"
_CHANGES = f"{TESTS}/store/sessions/test_session_changes.py"

SESSIONS: tuple[Mutant, ...] = (
    mutant(
        "session-commit-counts-twice",
        "a commit that is repeated because its answer was lost writes its words again",
        (
            f"{LUA}/session_commit.lua",
            "elseif c.number == '0' or tonumber(c.number) > tonumber(stored[2] or '0') then",
            "else",
        ),
        tests=f"{_STORE}::test_a_repeated_commit_is_written_once",
    ),
    mutant(
        "session-commit-unfenced",
        "a group that was frozen writes to a session that another group owns now",
        (f"{LUA}/session_commit.lua", "if stored[1] ~= c.token then", "if not stored[1] then"),
        tests=f"{_STORE}::test_an_outdated_token_changes_nothing",
    ),
    mutant(
        "session-release-unfenced",
        "a group that was frozen gives up a session that another group owns now",
        (f"{LUA}/session_release.lua", "if not r or r.token ~= token then", "if not r or not r.token then"),
        tests=f"{_STORE}::test_an_outdated_token_changes_nothing",
    ),
    mutant(
        "session-window-one-turn-short",
        "the journal drops the oldest turn that the model's window still needs",
        (
            f"{LUA}/session_commit.lua",
            "tonumber(string.match(oldest, '^%d+')) < from do",
            "tonumber(string.match(oldest, '^%d+')) <= from do",
        ),
        tests=f"{_STORE}::test_the_window_slides",
    ),
    mutant(
        "session-audio-trimmed-too-early",
        "audio leaves the journal as soon as one turn has heard it",
        (f"{_ENGINE}/session.py", "keep_from=self._starts[0]", "keep_from=turn.end"),
        tests=f"{_TABLE}::test_the_window_is_two_turns",
    ),
    mutant(
        "session-progress-unannounced",
        "a turn without text does not wake the gateway that waits for the model's progress",
        (f"{LUA}/session_commit.lua", "  announce_progress(c)\n", ""),
        tests=f"{_WATCHES}::test_a_turn_without_text_wakes_the_gateway",
        waits=True,
    ),
    mutant(
        "session-progress-announced-for-nobody",
        "each turn of each session costs an entry of the stream, although no gateway waits for it",
        (f"{LUA}/session_commit.lua", " or call('HDEL', key, 'watched') == 0", ""),
        tests=f"{_WATCHES}::test_turns_cost_no_entry_unless_a_gateway_waits",
    ),
    mutant(
        "session-never-idle",
        "if a client opens a session and sends nothing, the session stays forever",
        (
            f"{LUA}/session_open.lua",
            "  S.touch(a.session, a.timeout_ms)\n",
            "",
        ),
        tests=f"{_IDLE}::test_a_session_that_never_gets_audio_is_idle",
    ),
    mutant(
        "session-work-is-silence",
        "a session whose audio has ended counts as idle while the model computes the rest",
        (
            f"{LUA}/session_commit.lua",
            "if stored[1] then S.touch",
            "if false then S.touch",
        ),
        tests=f"{_STORE}::test_work_on_the_rest_is_not_silence",
    ),
    mutant(
        "session-claimed-while-draining",
        "a group that drains takes further sessions",
        (
            f"{LUA}/session_claim.lua",
            "if call('HEXISTS', k_group(a.group), 'drain') == 1 then",
            "if false then",
        ),
        tests=f"{_STORE}::test_a_draining_group_claims_nothing",
    ),
    mutant(
        "session-overlap-heard-twice",
        "audio that a client sends again after a broken connection is received twice",
        (
            f"{LUA}/session_append.lua",
            "at == received and a.samples or string.sub(a.samples, (received - at) * 2 + 1)",
            "a.samples",
        ),
        tests=f"{_STORE}::test_audio_may_be_sent_again_but_not_skipped",
    ),
    mutant(
        "session-gap-accepted",
        "audio that begins after a gap is appended to the journal, and the audio of the gap is lost",
        (f"{LUA}/session_append.lua", "if at > received then", "if false then"),
        tests=f"{_STORE}::test_audio_may_be_sent_again_but_not_skipped",
    ),
    mutant(
        "session-ping-ignored",
        "a session whose client sends pings, and no audio at present, ends as idle",
        (
            f"{LUA}/session_append.lua",
            "NOW_TEXT)\n  S.touch(id, stored[6])\n",
            "NOW_TEXT)\n  if new > 0 then S.touch(id, stored[6]) end\n",
        ),
        tests=f"{_IDLE}::test_an_append_without_new_audio_keeps_a_session_alive",
    ),
    mutant(
        "session-inbox-trusted",
        "a group whose inbox was lost never reads the audio that the inbox announced",
        (
            f"{SERVER}/adapters/redis/sessions/work.py",
            "all_sessions = now >= self._check_at",
            "all_sessions = not self._check_at",
        ),
        tests=f"{_STORE}::test_a_lost_inbox_loses_no_audio",
    ),
    mutant(
        "session-last-lost-at-takeover",
        "the next owner of a session does not know that no turn follows the newest one",
        (f"{SERVER}/adapters/redis/sessions/codec.py", 'last=last == "1"', "last=False"),
        tests=f"{_STORE}::test_the_next_owner_knows_the_last_turn",
    ),
    mutant(
        "session-turn-begins-again",
        "the next owner of a session does not continue the turn in which the former owner died",
        (
            f"{_ENGINE}/session.py",
            "if claim.turns and not claim.turns[-1].complete:",
            "if False:",
        ),
        tests=f"{_TABLE}::test_a_turn_of_another_group_continues_after_its_last_token",
    ),
    mutant(
        "session-segment-forgotten",
        "a sentence that one group begins and another group ends has only the words of the second group",
        (
            f"{_ENGINE}/session.py",
            "self._segment, self._segment_text = claim.segment, claim.segment_text",
            'self._segment, self._segment_text = claim.segment, ""',
        ),
        tests=f"{_TABLE}::test_a_sentence_of_two_groups_has_all_of_its_words",
    ),
    mutant(
        "session-orphans-behind-new-ones",
        "a session that has lost its group waits behind sessions that were opened since then",
        (
            f"{LUA}/_sessions.lua",
            "int(tonumber(r.opened) - S.ORPHAN_BAND)",
            "int(NOW)",
        ),
        tests=f"{_INTAKE}::test_orphans_come_before_new_sessions_and_go_to_groups_that_lag_too",
    ),
    mutant(
        "session-lagging-group-takes-new-ones",
        "a group that lags takes new sessions",
        (f"{LUA}/session_claim.lua", "a.orphans_only == '1' and '(0' or '+inf'", "'+inf'"),
        tests=f"{_INTAKE}::test_a_group_that_lags_leaves_new_sessions_and_their_wake_ups_to_others",
    ),
    mutant(
        "session-kills-all-groups",
        "a session that kills every group that works on it is given to one group after the other, forever",
        (f"{LUA}/_sessions.lua", "if kills_groups(r, reason, worked_on) then", "if false then"),
        tests=f"{TESTS}/store/sessions/test_deadly_sessions.py::test_groups_that_die_in_a_row_fail_the_session",
    ),
    mutant(
        "session-damaged-fails-all",
        "a session whose journal is damaged keeps all sessions of its group from being written",
        (f"{LUA}/session_commit.lua", "S.guarded(c.session, write, c, ARGV, at)", "write(c, ARGV, at)"),
        tests=f"{TESTS}/store/sessions/test_damaged_sessions.py::test_a_commit_fails_for_its_own_session_only",
    ),
    mutant(
        "session-refused-commit-repeats",
        "a commit that the store refuses for good is repeated forever",
        (
            f"{_ENGINE}/threads.py",
            "            if len(commits) == 1:\n",
            "            if len(commits) == 1:\n                raise\n",
        ),
        tests=f"{TESTS}/engines/sessions/test_session_threads.py::test_a_session_that_cannot_even_be_ended_is_forgotten",
    ),
    mutant(
        "session-news-forgotten",
        "the first audio of a session is noticed seconds late if its group reads audio of other sessions just then",
        (
            f"{SERVER}/adapters/redis/sessions/work.py",
            "(named.audio | self._unknown) & positions.keys()",
            "named.audio & positions.keys()",
        ),
        tests=f"{_WAKEUPS}::test_audio_of_a_session_that_the_reader_does_not_know_yet_is_not_forgotten",
    ),
    mutant(
        "session-first-text-at-each-text",
        "the metric of the time until the first text of a session counts all of its texts",
        (
            f"{_ENGINE}/session_metrics.py",
            "self._first_texts.append(now - self._textless.pop(session))",
            "self._first_texts.append(now - self._textless[session])",
        ),
        tests=f"{_METRICS}::test_the_first_text_is_measured_from_the_first_audio_once",
    ),
    mutant(
        "session-steps-measured-again",
        "the metrics of the model's steps count each step again every second",
        (f"{_ENGINE}/session_metrics.py", "        self._batches.clear()\n", ""),
        tests=f"{_METRICS}::test_steps_tokens_and_audio_are_those_of_the_scheduler",
    ),
    mutant(
        "session-wait-of-moved-ones-as-new",
        "the wait of a session that lost its group counts as the wait of a new session",
        (
            f"{LUA}/session_claim.lua",
            "since[2] and S.waits.moved or S.waits.new",
            "S.waits.new",
        ),
        tests=f"{_TOTALS}::test_waits_of_new_and_of_moved_sessions_are_counted_separately",
    ),
    mutant(
        "session-waiting-counts-as-active",
        "the gauge of active sessions includes those that wait for a group",
        (
            f"{SERVER}/observability/session_metrics.py",
            "SessionState.ACTIVE: overview.open - overview.waiting",
            "SessionState.ACTIVE: overview.open",
        ),
        tests=f"{_TOTALS}::test_the_room_of_a_pool_is_that_of_the_groups_that_take_sessions",
    ),
    mutant(
        "session-trace-lost-in-the-record",
        "a group that claims a session begins no trace, because the record does not carry the context",
        (f"{LUA}/session_open.lua", "if a.trace ~= '' then", "if a.trace == '' then"),
        tests=f"{_CHANGES}::test_the_next_claim_has_the_trace_and_knows_why_it_was_needed",
    ),
    mutant(
        "session-end-unreported",
        "the log and the trace of a session do not say that it has ended",
        (f"{LUA}/_sessions.lua", "  S.report(r, 'ended', ", "  local _ = string.format('', "),
        tests=f"{_CHANGES}::test_each_change_is_reported_once_by_the_process_that_made_it",
    ),
    mutant(
        "session-bystanders-count",
        "a session that a dead group did not work on counts as a cause of the group's death",
        (f"{LUA}/_sessions.lua", "if not worked_on[r.id] then return false end", ""),
        tests=f"{TESTS}/store/sessions/test_deadly_sessions.py"
        "::test_only_sessions_that_a_dead_group_worked_on_may_be_the_cause",
    ),
    mutant(
        "session-turn-too-long",
        "turns may have more blocks than the model allows",
        (
            f"{_ENGINE}/session.py",
            "self._block * self._fitting(self.multiplier)",
            "self._block * self.multiplier",
        ),
        (
            f"{_ENGINE}/session.py",
            "max(self._fitting(multiplier), self.least_multiplier)",
            "max(multiplier, self.least_multiplier)",
        ),
        tests=f"{_TABLE}::test_no_turn_has_more_blocks_than_the_model_allows",
    ),
    mutant(
        "session-hopeless-waits",
        "a session may be opened although no group of its pool can start",
        (f"{SERVER}/api/sessions/service.py", "        await self._start_failures.check(entry.name)\n", ""),
        tests=f"{TESTS}/api/sessions/test_start_failures.py::test_a_new_session_is_refused_with_the_reason",
    ),
    mutant(
        "session-accepted-audio-idles",
        "a session whose input has ended counts as idle while it waits for a group",
        (
            f"{LUA}/_sessions.lua",
            "  if r.input_ended and not r.group then return S.touch(id, r.timeout) end\n",
            "",
        ),
        tests=f"{_IDLE}::test_a_session_whose_input_has_ended_waits_for_a_group_however_long",
    ),
    mutant(
        "speech-heard-twice",
        "a block of audio is read again when its step is repeated",
        (
            f"{SERVER}/workloads/speech/model.py",
            "if len(sessions[row].embedded) <= number < len(blocks)",
            "if number < len(blocks)",
        ),
        tests=f"{TESTS}/speech/test_failed_steps.py",
    ),
    mutant(
        "speech-positions-kept",
        "a step that failed leaves positions without content in the caches of its sessions",
        (
            f"{SERVER}/workloads/speech/pages.py",
            "        self.end -= count\n        self._turns[-1] -= count\n",
            "        pass\n",
        ),
        tests=f"{TESTS}/speech/test_failed_steps.py",
    ),
    mutant(
        "speech-ring-written-early",
        "the encoder's caches have a block whose step failed",
        (
            f"{SERVER}/workloads/speech/causal_encoder.py",
            "        new: list[tuple[Tensor, Tensor]] = []\n",
            "        new: list[tuple[Tensor, Tensor]] = []\n        self._frames[at] = mel[:, -FRAMES_BEFORE:]\n",
        ),
        tests=f"{TESTS}/speech/test_failed_steps.py",
    ),
)
