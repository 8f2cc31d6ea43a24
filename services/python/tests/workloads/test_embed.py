"""The workload ``embed`` from a client to the model: every form of a request, and every error."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testkit.text_models import (
    POSITIONS,
    SPECIAL,
    WORDS,
    minilm,
    sentence,
    tiny_encoder,
    tiny_llm_encoder,
)

Start = Callable[..., Any]
QUERY = "query : "
TEXTS = [sentence(number, 1 + number * 5 % 23) for number in range(40)]


def vectors(answer: dict[str, Any]) -> np.ndarray:
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return np.array([each["embedding"] for each in answer["data"]])


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "tiny", prompts={"query": QUERY})


@pytest.fixture
def whole(start_whole: Start, encoder: Path) -> Any:
    """A pool ``vectors``, whose model is called ``tiny``."""
    return start_whole(pool_of(encoder))


def pool_of(folder: Path, **options: Any) -> dict[str, Any]:
    return {"vectors": {"workload": "embed", "model": str(folder), "options": options}}


def reference(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=1, **options)


def test_a_real_model_embeds_over_http(start_whole: Start) -> None:
    folder = minilm()
    whole = start_whole(pool_of(folder))
    texts = ["How do I bake bread?", "Flour, water, yeast and salt.", "The stock market fell.", "long " * 200]
    found = vectors(whole.post("/v1/embeddings", input=texts, model="vectors"))
    assert found.shape == (4, 384)
    assert np.abs(found - reference(folder, texts)).max() < 1e-4
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2


def test_vectors_are_those_of_the_package_in_the_order_of_the_request(whole: Any, encoder: Path) -> None:
    found = vectors(whole.post("/v1/embeddings", input=TEXTS))
    assert np.abs(found - reference(encoder, TEXTS)).max() < 1e-4
    assert max(int(size) for size in whole.debug("vectors")["batches"]) > 4, "they were computed one by one"
    alone = np.concatenate([vectors(whole.post("/v1/embeddings", input=text)) for text in TEXTS])
    assert np.abs(found - alone).max() < 1e-4


def test_a_language_model_embeds_with_its_own_pooling_and_prompt(start_whole: Start, tmp_path: Path) -> None:
    folder = tiny_llm_encoder(tmp_path / "llm")
    whole = start_whole(pool_of(folder))
    found = vectors(whole.post("/v1/embeddings", input=TEXTS, input_type="query"))
    assert np.abs(found - reference(folder, TEXTS, prompt_name="query")).max() < 1e-4
    found = vectors(whole.post("/v1/embeddings", input=TEXTS))
    assert np.abs(found - reference(folder, TEXTS)).max() < 1e-4


def test_queries_and_documents_have_their_own_prompts(whole: Any, encoder: Path) -> None:
    document = vectors(whole.post("/v1/embeddings", input=TEXTS[:3]))
    query = vectors(whole.post("/v1/embeddings", input=TEXTS[:3], input_type="query"))
    assert np.abs(query - reference(encoder, TEXTS[:3], prompt=QUERY)).max() < 1e-4
    assert np.abs(document - reference(encoder, TEXTS[:3])).max() < 1e-4
    assert np.abs(query - document).max() > 0.01
    bare = np.array(whole.post("/embedding/api", input=TEXTS[:3], is_query=True))
    assert np.array_equal(bare, query)
    assert np.array_equal(np.array(whole.post("/embedding/api", input=TEXTS[:3])), document)


def test_prompts_of_the_settings_replace_those_of_the_model(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder, prompts={"query": "", "document": "document : "}))
    query = vectors(whole.post("/v1/embeddings", input=TEXTS[0], input_type="search_query"))
    document = vectors(whole.post("/v1/embeddings", input=TEXTS[0]))
    assert np.abs(query - reference(encoder, TEXTS[:1])).max() < 1e-4
    assert np.abs(document - reference(encoder, TEXTS[:1], prompt="document : ")).max() < 1e-4


def test_token_ids_give_the_vectors_of_their_text(whole: Any, encoder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS[:3]]
    for kind in ("query", "document"):
        texts = whole.post("/v1/embeddings", input=TEXTS[:3], input_type=kind)
        lists = whole.post("/v1/embeddings", input=ids, input_type=kind)
        assert np.abs(vectors(lists) - vectors(texts)).max() < 1e-6
        assert lists["usage"] == texts["usage"]
    alone = whole.post("/v1/embeddings", input=ids[1])
    assert np.abs(vectors(alone)[0] - vectors(lists)[1]).max() < 1e-6


def test_base64_has_the_same_numbers(whole: Any) -> None:
    floats = vectors(whole.post("/v1/embeddings", input=TEXTS[:2]))
    answer = whole.post("/v1/embeddings", input=TEXTS[:2], encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]]
    assert np.abs(np.array(decoded) - floats).max() < 1e-7


def test_fewer_dimensions_have_length_one_again(whole: Any) -> None:
    whole_vector = vectors(whole.post("/v1/embeddings", input="a cat"))[0]
    short = vectors(whole.post("/v1/embeddings", input="a cat", dimensions=8.0))[0]
    assert short.shape == (8,)
    assert np.allclose(short, whole_vector[:8] / np.linalg.norm(whole_vector[:8]), atol=1e-6)


def test_the_answer_has_the_fields_of_openai(whole: Any) -> None:
    answer = whole.post("/v1/embeddings", input="the cat sat", model="tiny", user="someone")
    assert (answer["object"], answer["model"], answer["data"][0]["object"]) == ("list", "tiny", "embedding")
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}  # with [CLS] and [SEP]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "invalid_input"),
    ({"input": ""}, "input", "empty_input"),
    ({"input": []}, "input", "empty_input"),
    ({"input": ["a", ""]}, "input.1", "empty_input"),
    ({"input": ["a", 1]}, "input.1", "invalid_input"),
    ({"input": {"a": 1}}, "input", "invalid_input"),
    ({"input": [[1, 2], "a"]}, "input.1", "invalid_input"),
    ({"input": [[1], []]}, "input.1", "empty_input"),
    ({"input": [1, 10_000]}, "input", "invalid_token"),
    ({"input": [[1], [-1]]}, "input.1", "invalid_token"),
    ({"input": [[1, True]]}, "input.0", "invalid_token"),
    ({"input": ["a"] * 9}, "input", "too_many"),
    ({"input": "the cat " * POSITIONS}, "input", "too_long"),
    ({"input": ["the cat " * POSITIONS]}, "input.0", "too_long"),
    ({"input": [["the" * 500]]}, "input.0", "invalid_token"),
    ({"input": "a", "model": 5}, "model", "invalid_input"),
    ({"input": "a", "input_type": "other"}, "input_type", "invalid_input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_input"),
    ({"input": "a", "dimensions": 33}, "dimensions", "invalid_input"),
    ({"input": "a", "dimensions": 0}, "dimensions", "invalid_input"),
]


def test_a_wrong_request_is_422_in_the_shape_of_openai(start_whole: Start, encoder: Path) -> None:
    small = start_whole(pool_of(encoder, max_inputs=8))
    for body, param, code in WRONG:
        response = small.client.post("/v1/embeddings", json=body)
        assert response.status_code == 422, (body, response.text)
        assert response.headers["content-type"] == "application/json"
        error = response.json()["error"]
        assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error"), body
        assert error["message"].startswith(param.partition(".")[0])
        assert len(error["message"]) < 150, "the message quotes too much of the body"


def test_a_body_that_is_no_json_is_400(whole: Any) -> None:
    for body in (b'{"model"', b'{"input": "\\ud800"}', b'{"input": ' + b"[" * 100_000):
        response = whole.client.post("/v1/embeddings", content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json"), body[:30]


def test_a_vector_that_is_not_finite_is_an_error_of_its_own_request(
    start_whole: Start, encoder: Path
) -> None:
    """In float16, for example, a vector may overflow. The request for this vector gets an error in both encodings.

    Other requests of the batch get their vectors.
    """
    from safetensors.torch import load_file, save_file

    weights = load_file(encoder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][len(SPECIAL) + WORDS.index("cat")] = float("nan")
    save_file(weights, encoder / "model.safetensors", metadata={"format": "pt"})
    whole = start_whole(pool_of(encoder, cache_mb=1))
    for encoding in ("float", "base64"):
        error = whole.post("/v1/embeddings", 500, input="a cat", encoding_format=encoding)["error"]
        assert (error["code"], "not finite" in error["message"]) == ("workload_failed", True), error
    with ThreadPoolExecutor(8) as callers:
        texts = ["a cat", "a dog"] * 8
        statuses = callers.map(
            lambda text: whole.client.post("/embedding/api", json={"input": text}).status_code, texts
        )
        assert list(statuses) == [500, 200] * 8


def test_a_model_that_does_not_exist_is_404(whole: Any) -> None:
    error = whole.post("/v1/embeddings", 404, input="a", model="other")["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "tiny" in error["message"]
    assert whole.post("/embedding/api", 404, input="a", model="other")["code"] == "model_not_found"


def test_an_error_of_another_api_is_a_problem(whole: Any) -> None:
    problem = whole.post("/embedding/api", 422, input=["a", ""], is_query=False)
    assert (problem["code"], problem["errors"][0]["field"]) == ("empty_input", "input.1")
    assert whole.post("/embedding/api", 422, input="a", is_query="yes")["errors"][0]["field"] == "is_query"


def test_a_text_that_is_too_long_can_be_cut_and_the_answer_says_so(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder, too_long="cut"))
    texts = ["a cat", "the cat sat on a mat " * 30]
    response = whole.client.post("/v1/embeddings", json={"input": texts})
    answer = response.json()
    assert response.headers["daybreak-cut"] == "1"
    assert ["cut" in each for each in answer["data"]] == [False, True]
    assert answer["usage"]["total_tokens"] == 4 + POSITIONS
    assert np.abs(vectors(answer) - reference(encoder, texts)).max() < 1e-4  # the reference cuts too
    response = whole.client.post("/embedding/api", json={"input": texts})
    assert response.headers["daybreak-cut"] == "1"


def test_the_limit_of_tokens_is_a_setting(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder, max_tokens=6))
    whole.post("/v1/embeddings", input="the cat sat on")
    error = whole.post("/v1/embeddings", 422, input="the cat sat on mat")["error"]
    assert error["message"].startswith("input has 7 tokens; this model takes at most 6.")


def test_the_body_names_the_pool_or_its_model_and_else_the_default_is_chosen(
    start_whole: Start, tmp_path: Path
) -> None:
    first, second = (tiny_encoder(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    pools = {
        "first": {"workload": "embed", "model": str(first)},
        "second": {"workload": "embed", "model": str(second), "options": {"model_name": "org/two"}},
    }
    whole = start_whole(pools, http={"default_pools": {"embed": "second"}})
    for named, model in (
        ({"model": "first"}, "one"),
        ({"model": "one"}, "one"),
        ({"model": "org/two"}, "org/two"),
    ):
        assert whole.post("/v1/embeddings", input="a cat", **named)["model"] == model
    assert whole.post("/v1/embeddings", input="a cat")["model"] == "org/two"
    assert whole.debug("one")["model"] == "one"


def test_several_pools_without_a_default_must_be_named(start_whole: Start, encoder: Path) -> None:
    pool = pool_of(encoder)["vectors"]
    whole = start_whole({"first": pool, "second": pool})
    error = whole.post("/v1/embeddings", 404, input="a cat")["error"]
    assert (error["code"], error["message"]) == (
        "no_such_pool",
        "Several pools have the workload 'embed': first, second. Name one as `model`.",
    )
    assert whole.post("/v1/rerank", 404, query="a", documents=["b"])["code"] == "no_such_pool"


def test_health_and_debug_answer_on_a_cpu(whole: Any) -> None:
    whole.post("/v1/embeddings", input=["a cat", "a dog", "a bird"])
    shown = whole.client.get("/debug").json()
    assert shown["device"] == "cpu"
    assert shown["memory"]["rss_bytes"] > 1_000_000
    assert shown["load"]["waiting"] == 0
    assert shown["batches"] == {"3": 1}
    assert whole.client.get("/v1/pools/vectors/serve/health").json() == {"status": "ok"}
    assert whole.client.get("/v1/pools/vectors/serve/other").status_code == 404
    assert whole.client.get("/v1/pools/vectors/serve/v1/embeddings").status_code == 405
