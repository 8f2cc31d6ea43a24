"""Bugs in the workloads that embed and rerank, and in the routes to them."""

from __future__ import annotations

from verification.mutants.mutant import SERVER, TESTS, Mutant, mutant

_TEXT = f"{SERVER}/workloads/text_batches"
_EMBED = f"{SERVER}/workloads/embed"
_EMBEDDING_API = f"{SERVER}/api/embedding_api"
_EMBED_TESTS = f"{TESTS}/workloads/test_embed.py"
_RERANK_TESTS = f"{TESTS}/workloads/test_rerank.py"
_LIVE = f"{TESTS}/workloads/test_batching_live.py"
_LIMITS = f"{TESTS}/workloads/test_limits.py"

EMBEDDING: tuple[Mutant, ...] = (
    mutant(
        "embed-padding-counts",
        "the padding of a batch changes the vectors of its shorter texts",
        (
            f"{_TEXT}/device.py",
            "rows([[1] * len(each.ids) for each in inputs], 0)",
            "rows([[1]] * len(inputs), 1)",
        ),
        tests=f"{_EMBED_TESTS}::test_vectors_are_those_of_the_package_in_the_order_of_the_request",
    ),
    mutant(
        "embed-one-prompt",
        "queries get the prompt of documents",
        (f"{_EMBED}/workload.py", "self._model.prompts[wanted.kind]", 'self._model.prompts["document"]'),
        tests=f"{_EMBED_TESTS}::test_queries_and_documents_have_their_own_prompts",
    ),
    mutant(
        "embed-cache-mixes",
        "the cache answers a query with the vector of a document",
        (f"{_EMBED}/vector_cache.py", "        return kind, b", '        return "", b'),
        tests=f"{_LIVE}::test_the_cache_mixes_no_query_with_a_document",
    ),
    mutant(
        "embed-token-ids-unchecked",
        "a token id outside the vocabulary breaks a batch",
        (f"{_TEXT}/tokens.py", "not 0 <= token < self.vocabulary", "not 0 <= token"),
        tests=f"{_EMBED_TESTS}::test_a_wrong_request_is_422_in_the_shape_of_openai",
    ),
    mutant(
        "embed-hang-unnoticed",
        "a request seems to advance although the model that it waits for hangs",
        (f"{_TEXT}/batches.py", "if self._running and ended == self._ended:", "if False:"),
        tests=f"{_LIMITS}::test_a_model_that_hangs_breaks_its_group",
    ),
    mutant(
        "embed-late-texts-computed",
        "texts are computed after the deadline of their request",
        (f"{_TEXT}/batches.py", "math.inf if request.deadline is None else request.deadline", "math.inf"),
        tests=f"{_LIMITS}::test_a_request_that_is_too_late_is_504_and_its_texts_are_not_computed",
    ),
    mutant(
        "rerank-one-segment",
        "a cross-encoder cannot tell the query from the document",
        (f"{_TEXT}/device.py", "    if inputs[0].type_ids:\n", "    if False:\n"),
        tests=f"{_RERANK_TESTS}::test_scores_are_those_of_transformers_in_the_order_of_the_pairs",
    ),
    mutant(
        "rerank-random-head",
        "a model that cannot score pairs is accepted, so its ranking is random",
        (f"{SERVER}/workloads/rerank/model.py", 'if options.kind == "auto" and names and', "if False and"),
        tests=f"{_RERANK_TESTS}::test_a_model_that_does_not_rank_is_refused",
    ),
    mutant(
        "batching-change-lost",
        "a group never sees that the settings of its batches have changed",
        (f"{SERVER}/engines/serving/leader.py", "if changes == self._batching:", "if True:"),
        tests=f"{_LIVE}::test_what_was_changed_is_shown_and_holds_for_the_next_group",
    ),
    mutant(
        "batching-change-by-anyone",
        "any client may change the batches of a pool",
        (f"{_EMBEDDING_API}/batching_routes.py", "if not caller.admin:", "if False:"),
        tests=f"{_LIVE}::test_only_administrators_change_batches_and_only_of_pools_that_batch",
    ),
)
