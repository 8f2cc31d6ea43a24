"""Bugs in streaming sessions: their journal, and the groups that serve them."""

from __future__ import annotations

from verification.mutants.mutant import LUA, SERVER, TESTS, Mutant, mutant

_STORE = f"{TESTS}/store/sessions/test_sessions.py"
_TABLE = f"{TESTS}/engines/sessions/test_session_table.py"
_ENGINE = f"{SERVER}/engines/sessions"

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
        "a group that was frozen writes to a session that another group has by now",
        (f"{LUA}/session_commit.lua", "if stored[1] ~= c.token then", "if not stored[1] then"),
        tests=f"{_STORE}::test_an_outdated_token_changes_nothing",
    ),
    mutant(
        "session-release-unfenced",
        "a group that was frozen gives up a session that another group has by now",
        (f"{LUA}/session_release.lua", "if r and r.token == ARGV[i + 1] then", "if r and r.token then"),
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
        "session-never-idle",
        "the session of a client that opens it and sends nothing stays forever",
        (
            f"{LUA}/session_open.lua",
            "  call('ZADD', S.session_timers, int(NOW + tonumber(a.timeout_ms)), a.session)\n",
            "",
        ),
        tests=f"{_STORE}::test_a_session_that_never_gets_audio_is_idle",
    ),
    mutant(
        "session-work-is-silence",
        "a session whose audio has ended is idle while the model computes the rest",
        (
            f"{LUA}/session_commit.lua",
            "if stored[1] then call('ZADD', S.session_timers",
            "if false then call('ZADD', S.session_timers",
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
        "audio that begins behind what the journal has is appended, and what lies between is lost",
        (f"{LUA}/session_append.lua", "if at > received then", "if false then"),
        tests=f"{_STORE}::test_audio_may_be_sent_again_but_not_skipped",
    ),
    mutant(
        "session-inbox-trusted",
        "a group whose inbox was lost never reads the audio that it announced",
        (
            f"{SERVER}/adapters/redis/sessions/work.py",
            "all_sessions = now >= self._look_at",
            "all_sessions = not self._look_at",
        ),
        tests=f"{_STORE}::test_a_lost_inbox_loses_no_audio",
    ),
    mutant(
        "session-last-lost-at-takeover",
        "the next owner of a session takes its last turn for one that others follow",
        (f"{SERVER}/adapters/redis/sessions/codec.py", 'last=last == "1"', "last=False"),
        tests=f"{_STORE}::test_the_next_owner_knows_the_last_turn",
    ),
    mutant(
        "session-turn-begins-again",
        "the next owner of a session does not continue the turn in which the former one died",
        (
            f"{_ENGINE}/session.py",
            "if claim.turns and not claim.turns[-1].complete:",
            "if False:",
        ),
        tests=f"{_TABLE}::test_a_turn_of_another_group_continues_after_its_last_token",
    ),
    mutant(
        "session-segment-forgotten",
        "a sentence that one group begins and another ends has only the words of the second",
        (
            f"{_ENGINE}/session.py",
            "self._segment, self._segment_text = claim.segment, claim.segment_text",
            'self._segment, self._segment_text = claim.segment, ""',
        ),
        tests=f"{_TABLE}::test_a_sentence_of_two_groups_has_all_of_its_words",
    ),
)
