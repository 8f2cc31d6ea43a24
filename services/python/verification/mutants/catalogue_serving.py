"""Bugs in groups that answer requests: admission, answers, stops, drains."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_EXCHANGE = f"{TESTS}/engines/test_exchange.py"
_SERVING = f"{TESTS}/engines/test_serving.py"
_LIMITS = f"{TESTS}/engines/test_serving_limits.py"
_PARTS = f"{TESTS}/engines/test_answer_parts.py"
_ENGINE = f"{SERVER}/engines/serving"

SERVING: tuple[Mutant, ...] = (
    mutant(
        "capacity-plus-one",
        "a group takes one request more than its capacity",
        (f"{_ENGINE}/admission.py", "if self._held >= self.capacity:", "if self._held > self.capacity:"),
        tests=_EXCHANGE,
    ),
    mutant(
        "death-of-a-rank-is-an-error",
        "a request is answered with 500 because another rank died",
        (f"{_ENGINE}/request_run.py", "if failure is not None and failure.code == RANK_LOST:", "if False:"),
        tests=f"{TESTS}/engines/test_request_run.py",
    ),
    mutant(
        "death-of-a-rank-is-a-refusal",
        "if a rank dies while its group runs a request, this does not count as a try",
        (
            f"{_ENGINE}/leader.py",
            "                exchange.stop(Stop.BROKEN)\n",
            "                exchange.stop(Stop.LEAVING)\n",
        ),
        tests=f"{TESTS}/engines/test_serving_ranks.py::"
        "test_if_a_rank_dies_before_the_answer_another_group_gets_the_request",
    ),
    mutant(
        "draining-takes-requests",
        "a group that drains takes new requests, which are lost when it ends",
        (f"{_ENGINE}/admission.py", "if self._draining:", "if self._draining and self._held:"),
        tests=_EXCHANGE,
    ),
    mutant(
        "cut-answer-looks-whole",
        "a stream that is stopped in the middle ends like one that is complete",
        (
            f"{_ENGINE}/exchange.py",
            "return self._finished and not self._parts",
            "return self._ended and not self._parts",
        ),
        tests=_EXCHANGE,
    ),
    mutant(
        "no-back-pressure",
        "the answer to a slow client grows in memory",
        (f"{_ENGINE}/exchange.py", "while self._buffered >= BUFFER_BYTES and", "while False and"),
        tests=_EXCHANGE,
    ),
    mutant(
        "slot-freed-too-early",
        "a request that still runs after its client has gone does not count against the capacity",
        (f"{_ENGINE}/exchange.py", "last = self._sides == 0", "last = self._sides == 1"),
        tests=_EXCHANGE,
    ),
    mutant(
        "gone-client-runs-on",
        "the workload continues to compute for a client that has closed its connection",
        (f"{_ENGINE}/http_app.py", "    exchange.stop(Stop.GONE)\n\n\nasync def", "    pass\n\n\nasync def"),
        tests=f"{_SERVING}::test_a_client_that_disconnects_closes_the_generator",
    ),
    mutant(
        "expired-request-runs",
        "a request is run although its deadline has passed",
        (f"{_ENGINE}/http_app.py", "deadline <= time.monotonic():", "deadline <= 0:"),
        (f"{_ENGINE}/request_run.py", "if not exchange.begin():", "if exchange.begin() is None:"),
        tests=f"{_SERVING}::test_a_request_whose_deadline_has_passed_is_not_run",
    ),
    mutant(
        "refused-upload-keeps-its-place",
        "a request whose body is refused occupies the group forever",
        (
            f"{_ENGINE}/http_app.py",
            "            self._admission.release()\n            raise\n",
            "            raise\n",
        ),
        tests=f"{_LIMITS}::test_a_body_that_is_too_large_is_refused_and_frees_its_place",
    ),
    mutant(
        "answer-that-breaks-keeps-its-place",
        "an answer of the wrong length occupies the group until its deadline",
        (
            f"{_ENGINE}/http_app.py",
            "            exchange.stop(Stop.GONE)  # the rest of the answer will not be sent\n",
            "",
        ),
        tests=f"{_LIMITS}::test_an_answer_whose_length_is_wrong_is_cut_off_and_frees_its_place",
    ),
    mutant(
        "empty-parts-are-swallowed",
        "a workload counts as stalled although it yields empty parts while it computes",
        (
            f"{_ENGINE}/answer_parts.py",
            "            yield AnswerPart(data, head)\n",
            "            if data:\n                yield AnswerPart(data, head)\n",
        ),
        tests=f"{_SERVING}::test_empty_parts_show_progress_and_can_be_cancelled",
    ),
    mutant(
        "credentials-in-the-log",
        "the log quotes the credentials of a request",
        (f"{_ENGINE}/request_run.py", "        if secrets:\n", "        if False:\n"),
        tests=f"{_SERVING}::test_the_log_knows_the_credentials_of_a_request_as_private",
    ),
    mutant(
        "header-injection",
        "a header value that contains a line break adds headers to the answer",
        (f"{_ENGINE}/answer_parts.py", "byte < 32 and byte != 9", "byte < 9"),
        tests=_PARTS,
    ),
    mutant(
        "stall-is-never-noticed",
        "a request that hangs occupies the group forever",
        (f"{_ENGINE}/leader.py", "if silent_s > stall_s:", "if silent_s > 1000 * stall_s:"),
        tests=f"{_SERVING}::test_a_request_without_progress_breaks_the_group",
    ),
    mutant(
        "leaving-drops-requests",
        "a group that leaves does not wait for its requests",
        (f"{_ENGINE}/leader.py", "until = time.monotonic() + config.drain_s", "until = time.monotonic()"),
        tests=f"{_SERVING}::test_a_group_that_leaves_ends_its_requests_and_refuses_new_ones",
    ),
)
