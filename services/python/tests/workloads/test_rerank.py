"""Tests of the workload ``rerank``, its APIs and its model. The scores must equal those that transformers computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from testkit.text_models import POSITIONS, sentence, tiny_cross_encoder, tiny_encoder, tiny_llm_reranker

Start = Callable[..., Any]
QUERY = "where is the red cat ?"
TEXTS = [sentence(number, 1 + number * 5 % 19) for number in range(24)]
LLM = {
    "before": "relevant :",
    "body": "query {query} document {document}",
    "after": "yes or no ?",
    "yes": "yes",
    "no": "no",
}


def pool_of(folder: Path, **options: Any) -> dict[str, Any]:
    return {"ranks": {"workload": "rerank", "model": str(folder), "options": options}}


def reference(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The logits of a cross-encoder, computed one pair at a time by transformers, without Daybreak."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(*pair, return_tensors="pt", truncation="only_second")).logits.item()
            for pair in pairs
        ]


def llm_reference(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The probability of yes against no, computed one pair at a time by transformers, without Daybreak."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    found = []
    for query, document in pairs:
        text = f"relevant : query {query} document {document} yes or no ?"
        with torch.inference_mode():
            last = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        found.append(float(torch.softmax(last[[yes, no]], dim=0)[0]))
    return found


def sigmoid(values: Sequence[float]) -> list[float]:
    import torch

    found: list[float] = torch.sigmoid(torch.tensor(values)).tolist()
    return found


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Path:
    return tiny_cross_encoder(tmp_path / "tiny")


@pytest.fixture
def whole(start_whole: Start, cross_encoder: Path) -> Any:
    return start_whole(pool_of(cross_encoder))


def test_scores_are_those_of_transformers_in_the_order_of_the_pairs(whole: Any, cross_encoder: Path) -> None:
    expected = reference(cross_encoder, [(QUERY, text) for text in TEXTS])
    assert max(expected) - min(expected) > 0.1, "the model does not distinguish the texts"
    scores = whole.post("/reranker/api", questions=[QUERY], texts=TEXTS)
    assert scores == pytest.approx(sigmoid(expected), abs=1e-4)
    assert max(int(size) for size in whole.debug("ranks")["batches"]) > 4, (
        "the pairs were computed one by one"
    )
    questions = list(reversed(TEXTS))
    expected = reference(cross_encoder, list(zip(questions, TEXTS, strict=True)))
    scores = whole.post("/reranker/api", questions=questions, texts=TEXTS)
    assert scores == pytest.approx(sigmoid(expected), abs=1e-4)


def test_a_language_model_ranks_by_yes_and_no(start_whole: Start, tmp_path: Path) -> None:
    folder = tiny_llm_reranker(tmp_path / "llm")
    whole = start_whole(pool_of(folder, **LLM))
    pairs = [(QUERY, text) for text in TEXTS] + [("{document}", "cat {query}")]
    expected = llm_reference(folder, pairs)
    assert max(expected) - min(expected) > 0.01, "the model does not distinguish the texts"
    scores = whole.post("/reranker/api", questions=[q for q, _ in pairs], texts=[t for _, t in pairs])
    assert scores == pytest.approx(expected, abs=1e-4)


def test_cohere_and_jina_get_the_best_first(whole: Any, cross_encoder: Path) -> None:
    scores = sigmoid(reference(cross_encoder, [(QUERY, text) for text in TEXTS]))
    best = sorted(range(len(TEXTS)), key=lambda number: -scores[number])
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = whole.post(path, query=QUERY, documents=TEXTS, top_n=5, model="tiny")
        assert [each["index"] for each in answer["results"]] == best[:5]
        found = [each["relevance_score"] for each in answer["results"]]
        assert found == pytest.approx([scores[number] for number in best[:5]], abs=1e-4)
        assert "document" not in answer["results"][0]
        assert answer["model"] == "tiny"
        assert answer["usage"]["total_tokens"] == answer["meta"]["tokens"]["input_tokens"] > 24 * 8
    documents = [{"text": TEXTS[0]}, TEXTS[1]]
    answer = whole.post("/v1/rerank", query=QUERY, documents=documents, return_documents=True)
    shown = {each["index"]: each["document"]["text"] for each in answer["results"]}
    assert shown == {0: TEXTS[0], 1: TEXTS[1]}


def test_text_embeddings_inference_gets_a_bare_list(whole: Any, cross_encoder: Path) -> None:
    raw = reference(cross_encoder, [(QUERY, text) for text in TEXTS[:6]])
    answer = whole.post("/rerank", query=QUERY, texts=TEXTS[:6], raw_scores=True, return_text=True)
    assert [each["score"] for each in answer] == pytest.approx(sorted(raw, reverse=True), abs=1e-4)
    assert all(each["text"] == TEXTS[each["index"]] for each in answer)
    answer = whole.post("/rerank", query=QUERY, texts=TEXTS[:6])
    assert [each["score"] for each in answer] == pytest.approx(sorted(sigmoid(raw), reverse=True), abs=1e-4)
    assert set(answer[0]) == {"index", "score"}


def test_equal_texts_keep_their_order(whole: Any) -> None:
    answer = whole.post("/v1/rerank", query=QUERY, documents=["a cat"] * 5)
    assert [each["index"] for each in answer["results"]] == [0, 1, 2, 3, 4]


LONG = "the cat sat on a mat " * 30
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("/v1/rerank", {"documents": ["a"]}, "query", "invalid_input"),
    ("/v1/rerank", {"query": "", "documents": ["a"]}, "query", "empty_input"),
    ("/v1/rerank", {"query": "a"}, "documents", "invalid_input"),
    ("/v1/rerank", {"query": "a", "documents": []}, "documents", "empty_input"),
    ("/v1/rerank", {"query": "a", "documents": ["a", ""]}, "documents.1", "empty_input"),
    ("/v1/rerank", {"query": "a", "documents": [{"image": "a"}]}, "documents.0", "invalid_input"),
    ("/v1/rerank", {"query": "a", "documents": ["a"] * 9}, "documents", "too_many"),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n", "invalid_input"),
    ("/v2/rerank", {"query": "a", "documents": ["a", LONG]}, "documents.1", "too_long"),
    ("/rerank", {"query": "a", "texts": "a"}, "texts", "invalid_input"),
    ("/rerank", {"query": "a", "texts": ["a"], "raw_scores": 1}, "raw_scores", "invalid_input"),
    ("/rerank", {"query": LONG, "texts": ["a"], "truncate": True}, "texts.0", "too_long"),
    (
        "/rerank",
        {"query": "a", "texts": ["a"], "truncation_direction": "Left"},
        "truncation_direction",
        "invalid_input",
    ),
    ("/reranker/api", {"questions": ["a", "a"], "texts": ["a"]}, "questions", "invalid_input"),
    ("/reranker/api", {"questions": [], "texts": ["a"]}, "questions", "empty_input"),
    ("/reranker/api", {"texts": ["a"]}, "questions", "invalid_input"),
]


def test_a_wrong_request_is_422_and_names_the_field(start_whole: Start, cross_encoder: Path) -> None:
    small = start_whole(pool_of(cross_encoder, max_inputs=8))
    for path, body, field, code in WRONG:
        response = small.client.post(path, json=body)
        assert response.status_code == 422, (body, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (problem["errors"][0]["field"], problem["code"]) == (field, code), body
        assert (code == "too_long") == ("tokens with its query; " in problem["detail"]), (
            "only the detail of too_long counts the tokens with the query"
        )


@pytest.mark.parametrize("kind", ["cross-encoder", "language-model"])
def test_a_text_that_is_too_long_can_be_cut_and_the_answer_says_so(
    start_whole: Start, tmp_path: Path, kind: str
) -> None:
    make = tiny_cross_encoder if kind == "cross-encoder" else tiny_llm_reranker
    folder = make(tmp_path / "tiny")
    whole = start_whole(pool_of(folder, **({} if kind == "cross-encoder" else LLM)))
    texts = ["a cat", LONG]
    whole.post("/rerank", 422, query=QUERY, texts=texts)
    response = whole.client.post("/rerank", json={"query": QUERY, "texts": texts, "truncate": True})
    assert response.headers["daybreak-cut"] == "1"
    scores = {each["index"]: each for each in response.json()}
    assert (scores[0].get("cut"), scores[1]["cut"]) == (None, True)
    if kind == "cross-encoder":
        expected = sigmoid(reference(folder, [(QUERY, text) for text in texts]))
        assert [scores[0]["score"], scores[1]["score"]] == pytest.approx(expected, abs=1e-4)
    else:
        words = (
            POSITIONS
            - len(["relevant", ":", "query", "document", "yes", "or", "no", "?"])
            - len(QUERY.split())
        )
        kept = " ".join(LONG.split()[:words])
        (expected_score,) = llm_reference(folder, [(QUERY, kept)])
        assert scores[1]["score"] == pytest.approx(expected_score, abs=1e-4)


def test_a_model_that_does_not_rank_is_refused(tmp_path: Path) -> None:
    from daybreak_server.workloads.base import Group, ModelMissingError
    from daybreak_server.workloads.rerank.workload import Rerank

    encoder = tiny_encoder(tmp_path / "encoder")  # transformers would give it a random head
    with pytest.raises(ModelMissingError, match="is a BertModel, which has no score for pairs"):
        Rerank().load(Group(options={"model": str(encoder)}))
    classes = tiny_cross_encoder(tmp_path / "classes", scores=3)
    with pytest.raises(ModelMissingError, match="has 3 scores for each pair; a reranker has one"):
        Rerank().load(Group(options={"model": str(classes)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the pool has no model"),
        ({"model": "/nowhere"}, "has neither config.json nor modules.json"),
    ],
)
def test_a_group_without_a_model_says_what_to_do(options: dict[str, Any], message: str) -> None:
    from daybreak_server.workloads.base import Group, ModelMissingError
    from daybreak_server.workloads.embed.workload import Embed
    from daybreak_server.workloads.rerank.workload import Rerank

    for workload in (Embed(), Rerank()):
        with pytest.raises(ModelMissingError, match=message):
            workload.load(Group(options=options))
        with pytest.raises(ModelMissingError, match="groups of one rank"):
            workload.load(Group(options=options, size=2))


def test_a_word_that_is_not_one_token_is_refused(tmp_path: Path) -> None:
    from daybreak_server.workloads.base import Group, ModelMissingError
    from daybreak_server.workloads.rerank.workload import Rerank

    folder = tiny_llm_reranker(tmp_path / "llm")
    with pytest.raises(ModelMissingError, match="'perhaps' is not one token"):
        Rerank().load(Group(options={"model": str(folder), **LLM, "yes": "perhaps"}))
