"""Bugs in the scheduler of streaming sessions, in the rule of the latency multiplier, and in the simulated model."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_SCHEDULER = f"{SERVER}/batching/iterations/scheduler.py"
_QUEUES = f"{SERVER}/batching/iterations/queues.py"
_STRATEGIES = f"{SERVER}/batching/iterations/strategies.py"
_PIECES = f"{SERVER}/batching/iterations/pieces.py"
_SESSION = f"{SERVER}/engines/sessions/session.py"
_SPEECH = f"{SERVER}/workloads/speech/model.py"
_LAG = f"{SERVER}/batching/iterations/lag.py"
_MODEL = f"{SERVER}/workloads/simulated_speech/model.py"
_RULES_TESTS = f"{TESTS}/batching/test_iterations.py"
_PIECES_TESTS = f"{TESTS}/batching/test_pieces.py"
_LAG_TESTS = f"{TESTS}/batching/test_lag.py"
_SIMULATED_TESTS = f"{TESTS}/workloads/test_simulated_speech.py"

ITERATIONS: tuple[Mutant, ...] = (
    mutant(
        "iterations-decode-starves",
        "new turns keep a session from its next token forever",
        (
            _STRATEGIES,
            "return not waiting.decoded_last and now >= waiting.decode_since + rules.max_decode_delay_s",
            "return False",
        ),
        tests=f"{_RULES_TESTS}::test_decode_does_not_starve_under_endless_prefill",
    ),
    mutant(
        "iterations-prefill-starves",
        "overdue decode keeps new turns from the device forever",
        (_STRATEGIES, "return not waiting.decoded_last and now >=", "return now >="),
        tests=f"{_RULES_TESTS}::test_prefill_does_not_starve_under_a_tiny_decode_delay",
    ),
    mutant(
        "iterations-gathers-for-ever",
        "a new turn waits until enough others come, however long that takes",
        (_STRATEGIES, "< enough and now < waiting.prefill.head + rules.gather_wait_s", "< enough"),
        tests=f"{_RULES_TESTS}::test_prefill_gathers_for_a_limited_time",
    ),
    mutant(
        "iterations-two-turns-at-once",
        "a session begins its next turn while the turn before still runs",
        (
            _SCHEDULER,
            " or session in self._in_flight:\n            self._later",
            ":\n            self._later",
        ),
        tests=f"{_RULES_TESTS}::test_a_session_has_one_turn_at_a_time",
    ),
    mutant(
        "iterations-turn-lost",
        "audio that comes during a turn is never translated",
        (_SCHEDULER, "                    self._next_turn(session, now)\n", "                    pass\n"),
        tests=f"{_RULES_TESTS}::test_a_session_has_one_turn_at_a_time",
    ),
    mutant(
        "iterations-forgotten-turn-runs",
        "a session that was forgotten keeps its later turns",
        (_SCHEDULER, "        self._later.pop(session, None)\n", ""),
        tests=f"{_RULES_TESTS}::test_a_forgotten_session_leaves_its_queue_and_its_batch",
    ),
    mutant(
        "iterations-overtakes",
        "the newest sessions go first",
        (
            _QUEUES,
            "itertools.islice(self._waiting, count)",
            "itertools.islice(reversed(self._waiting), count)",
        ),
        tests=f"{_RULES_TESTS}::test_sessions_join_and_leave_between_two_steps",
    ),
    mutant(
        "iterations-request-joins",
        "a new turn joins a batch of the strategy `request` before the batch has ended",
        (
            _STRATEGIES,
            "        if decode:\n            self._together",
            "        if decode and not prefill:\n            self._together",
        ),
        tests=f"{_RULES_TESTS}::test_a_batch_of_the_request_strategy_runs_to_its_end_before_others_join",
    ),
    mutant(
        "iterations-choice-unchecked",
        "a strategy from outside the package makes batches that are larger than the model allows",
        (_SCHEDULER, "if not 1 <= size <= self._rules.max_batch_size:", "if size < 1:"),
        tests=f"{TESTS}/batching/test_own_strategies.py::test_a_wrong_choice_names_the_strategy",
    ),
    mutant(
        "pieces-prefill-starves",
        "sessions that decode leave no place for a new turn",
        (_PIECES, "decode.first(min(size - 1, budget - block))", "decode.first(min(size, budget))"),
        tests=(
            f"{_PIECES_TESTS}::test_one_block_is_read_however_many_sessions_decode",
            f"{TESTS}/batching/test_iterations_model.py",
        ),
    ),
    mutant(
        "pieces-limit-exceeded",
        "a turn is read at once, however small the limit of a batch is",
        (_PIECES, "min(left, ready.blocks)", "ready.blocks"),
        tests=f"{_PIECES_TESTS}::test_a_long_turn_is_read_in_pieces_beside_the_decodes",
    ),
    mutant(
        "pieces-rest-lost",
        "the rest of a turn is never read",
        (_SCHEDULER, "        for session in reversed(batch.unfinished):", "        for session in ():"),
        tests=f"{_PIECES_TESTS}::test_a_long_turn_is_read_in_pieces_beside_the_decodes",
    ),
    mutant(
        "pieces-forgotten-turn-returns",
        "if a session is forgotten while a piece of its turn runs, it still waits for the next piece",
        (_SCHEDULER, "        self._unread.pop(session, None)\n", ""),
        tests=f"{_PIECES_TESTS}::test_a_session_that_is_forgotten_in_the_middle_of_its_turn_is_gone",
    ),
    mutant(
        "pieces-overtaken",
        "a turn that was begun waits behind those that were not",
        (_QUEUES, "        self._waiting.move_to_end(session, last=False)\n", ""),
        tests=f"{_PIECES_TESTS}::test_a_turn_that_was_begun_is_read_before_the_next_ones",
    ),
    mutant(
        "pieces-audio-repeated",
        "each piece of a turn has the audio from the beginning of the turn",
        (
            _SESSION,
            "audio, self._unread = self._unread[:size], self._unread[size:]",
            "audio = self._unread[:size]",
        ),
        tests=f"{TESTS}/engines/sessions/test_turns_in_pieces.py::test_each_piece_has_its_own_audio",
    ),
    mutant(
        "pieces-begin-turns",
        "each piece of a turn counts as a turn of its own, so the window of the language model slides too early",
        (
            _SPEECH,
            "        if not session.unfinished:\n            session.table",
            "        if True:\n            session.table",
        ),
        tests=f"{TESTS}/speech/test_turns_in_pieces.py::test_any_cuts_give_the_same_tokens_in_batches_of_both_phases",
    ),
    mutant(
        "lag-multiplier-swings",
        "the latency multiplier falls as soon as the lag is below the limit",
        (_LAG, "if lag_s < rules.small * rules.limit_s:", "if lag_s < rules.limit_s:"),
        tests=f"{_LAG_TESTS}::test_a_middling_lag_changes_nothing",
    ),
    mutant(
        "lag-counts-files",
        "a client that sends a whole recording at once makes its group look late",
        (_LAG, "min(received_s, elapsed_s)", "received_s"),
        tests=f"{_LAG_TESTS}::test_a_file_that_is_sent_at_once_makes_no_lag",
    ),
    mutant(
        "simulated-takeover-forgets",
        "a group that takes over a session does not know the session's last word",
        (_MODEL, "            session.before = token\n            turn.place", "            turn.place"),
        tests=f"{_SIMULATED_TESTS}::test_another_group_continues_exactly",
    ),
)
