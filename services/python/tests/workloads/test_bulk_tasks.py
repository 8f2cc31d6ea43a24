"""Tasks over files, from the client to the model. Each line gets the same result as a request with the same text."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.text_models import sentence, tiny_cross_encoder, tiny_encoder

Start = Callable[..., Any]
TEXTS = [sentence(number, 1 + number * 5 % 19) for number in range(300)]


def lines_of(whole: Any, task: str) -> list[dict[str, Any]]:
    (artifact,) = whole.api.until(task, "succeeded", 120)["artifacts"]
    answer = whole.client.get(artifact["url"], follow_redirects=True)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.heavy
def test_a_task_embeds_each_line_as_a_request_would(start_whole: Start, tmp_path: Path) -> None:
    """Lines are texts, or objects with a text. A line that cannot be embedded gets an error as its result."""
    (tmp_path / "corpora").mkdir()
    lines: list[Any] = [{"id": n, "text": text} if n % 2 else text for n, text in enumerate(TEXTS)]
    lines[4], lines[5], lines[6] = sentence(0, 500), {"no": "text"}, "half a pair: \ud800"
    (tmp_path / "corpora" / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bulk = {"places": {"corpora": (tmp_path / "corpora").as_uri()}}
    model = str(tiny_encoder(tmp_path / "tiny"))
    whole = start_whole(
        {"embed": {"workload": "embed", "model": model, "bulk": bulk}},
        artifacts={"url": (tmp_path / "blobs").as_uri()},
    )
    file = {"place": "corpora", "path": "texts.jsonl"}
    task = whole.api.submit({"file": file, "encoding_format": "base64"}, pool="embed")["id"]
    found = lines_of(whole, task)
    assert [line["line"] for line in found] == list(range(1, 301))
    assert {line["line"]: line["error"]["code"] for line in found if "error" in line} == {
        5: "too_long",
        6: "invalid_input",
        7: "invalid_json",
    }
    assert found[4]["error"]["message"].startswith("text has 502 tokens")
    assert (found[7]["id"], "id" in found[8]) == (7, False)
    wanted = whole.post("/v1/embeddings", input=TEXTS)["data"]
    for number in (n for n in range(300) if n not in (4, 5, 6)):
        data = base64.b64decode(found[number]["embedding"])
        vector = struct.unpack(f"<{len(data) // 4}f", data)
        assert vector == pytest.approx(wanted[number]["embedding"], abs=1e-4)


def test_a_task_scores_pairs_of_an_artifact(start_whole: Start, tmp_path: Path) -> None:
    """The file may be the artifact of an earlier task of the same tenant.

    Here, the second task reads the artifact of the first one.
    """
    (tmp_path / "files").mkdir()
    pairs: list[Any] = [{"query": "where is the red cat ?", "text": text, "id": text} for text in TEXTS[:50]]
    wrong: list[Any] = [{"query": "a"}, {"query": 5, "text": "a"}, {"query": "a", "text": ""}, "a"]
    (tmp_path / "files" / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs + wrong)))
    bulk = {"places": {"files": (tmp_path / "files").as_uri()}}
    model = str(tiny_cross_encoder(tmp_path / "tiny"))
    whole = start_whole(
        {"rerank": {"workload": "rerank", "model": model, "bulk": bulk}},
        artifacts={"url": (tmp_path / "blobs").as_uri()},
    )
    first = whole.api.submit({"file": {"place": "files", "path": "pairs.jsonl"}}, pool="rerank")["id"]
    found = lines_of(whole, first)
    wanted = whole.post("/reranker/api", questions=pairs[0]["query"], texts=TEXTS[:50])
    assert [line["relevance_score"] for line in found[:50]] == pytest.approx(wanted, abs=1e-4)
    assert [line["error"]["message"] for line in found[50:]] == [
        "The object has no `text`.",
        "`query` must be a text.",
        "The text is empty.",
        "The line must be an object with `query` and `text`.",
    ]
    second = whole.api.submit({"file": {"task": first, "artifact": "output.jsonl"}}, pool="rerank")["id"]
    again = lines_of(whole, second)  # these lines have no query
    assert [(line["id"], line["error"]["code"]) for line in again[:50]] == [
        (text, "invalid_input") for text in TEXTS[:50]
    ]
