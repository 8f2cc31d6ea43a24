"""One text of 8,000 tokens among short texts, with a model that reads all 8,000 tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.embed.model import EmbedInput
from daybreak_server.workloads.embed.workload import Embed
from testkit.text_models import sentence, tiny_encoder
from testkit.waiting import wait_until

TOKENS = 8000
SHORT = 24


class Lengths:
    """The batches in order, each as the lengths of its texts. No batch is computed before ``open`` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []


LENGTHS = Lengths()


class Watched(Embed):
    """The workload ``embed``. It records its batches in ``LENGTHS``."""

    def warm_up(self) -> None:
        encode = self._model.encode

        def noted(inputs: Sequence[EmbedInput]) -> list[Any]:
            LENGTHS.batches.append([len(each.tokens.ids) for each in inputs])
            LENGTHS.open.wait(60)
            return encode(inputs)

        self._batches._run = noted


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="embed", kind="online", implementation=f"{__name__}:Watched", capacity=64, batches=True
)


def test_an_outlier_of_8000_tokens_is_computed_alone_and_holds_up_one_batch_at_most(
    start_whole: Callable[..., Any], tmp_path: Path
) -> None:
    """If the outlier shared a batch, the short texts of the batch would be padded to 8,000 tokens each."""
    LENGTHS.__init__()  # type: ignore[misc]
    folder = tiny_encoder(tmp_path / "long", positions=TOKENS + 2)
    whole = start_whole({"vectors": {"workload": f"{__name__}:SPEC", "model": str(folder)}})
    long, short = sentence(1, TOKENS), [sentence(number, 3 + number % 6) for number in range(SHORT)]

    def vector(text: str) -> list[float]:
        (entry,) = whole.post("/v1/embeddings", input=text)["data"]
        return entry["embedding"]

    with ThreadPoolExecutor(SHORT + 2) as pool:
        first = pool.submit(vector, "a cat")
        wait_until(lambda: len(LENGTHS.batches) == 1, 30, "a batch that holds the others up")
        outlier = pool.submit(vector, long)
        wait_until(lambda: whole.debug("vectors")["load"]["waiting"] == 1, 60, "the outlier to wait")
        others = [pool.submit(vector, text) for text in short]
        wait_until(lambda: whole.debug("vectors")["load"]["waiting"] == 1 + SHORT, 60, "all to wait")
        LENGTHS.open.set()
        found = [each.result(120) for each in (first, outlier, *others)]
    batches = LENGTHS.batches[1:]
    assert [TOKENS + 2] in batches
    assert max(max(lengths) for lengths in batches if len(lengths) > 1) <= 10
    assert len(batches) <= 1 + 3, "the short texts did not share batches"
    for text, shared in zip(("a cat", long, *short), found, strict=True):
        assert vector(text) == pytest.approx(shared, abs=1e-4)
