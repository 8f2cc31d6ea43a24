"""OpenAI's own client sends requests to two workers, which run a real model on real llama.cpp servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from testkit import llama

pytestmark = pytest.mark.skipif(
    llama.found() is None, reason=f"a llama.cpp server is not installed: {llama.INSTALL}"
)
ARGS = {"ctx_size": 1024, "parallel": 2, "embeddings": True}
SKY = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def client(start_models: Any) -> Iterator[openai.OpenAI]:
    """A client of a gateway that has two workers and the model ``smol``. No worker runs the model yet."""
    models = start_models()
    engine = {"llama.cpp": {"command": llama.engine_command(), "capacity": 2}}
    for worker in ("w1", "w2"):
        models.start_worker(worker, engines=engine)
    source = str(llama.model_file())
    models.register(
        "smol",
        source=source,
        engine="llama.cpp",
        args=ARGS,
        memory_bytes=400 << 20,
        replicas=2,
        target_load=2,
    )
    with openai.OpenAI(base_url=f"{models.api.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        client.wait_ready = lambda: models.wait_for("smol", "ready", ready=2)  # type: ignore[attr-defined]
        yield client


@pytest.mark.timeout(600)
def test_a_real_model_starts_answers_and_is_balanced(client: openai.OpenAI) -> None:
    """The first request starts one replica, and six requests at once start the other. Both replicas share the work."""
    first = client.chat.completions.create(model="smol", messages=SKY, max_tokens=20, temperature=0)
    assert "sky" in (first.choices[0].message.content or "")

    def ask(number: int) -> str:
        raw = client.chat.completions.with_raw_response.create(
            model="smol", messages=[{"role": "user", "content": f"Count to {number + 5}."}], max_tokens=16
        )
        assert raw.parse().usage.completion_tokens > 1
        return raw.headers["daybreak-worker"]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
        client.wait_ready()  # type: ignore[attr-defined]
        shares = Counter(pool.map(ask, range(6)))
    assert shares.keys() == {"w1", "w2"}
    assert min(shares.values()) >= 2

    completion = client.completions.create(
        model="smol", prompt="The capital of France is", max_tokens=4, temperature=0
    )
    assert "Paris" in completion.choices[0].text
    stream = client.chat.completions.create(
        model="smol", messages=SKY, max_tokens=20, temperature=0, stream=True
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([part for part in parts if part]) > 3
    assert "sky" in "".join(parts)

    vectors = client.embeddings.create(model="smol", input=["a cat", "a kitten", "an invoice"]).data
    cat, kitten, invoice = (vector.embedding for vector in vectors)
    assert len(cat) == len(kitten) > 100
    assert _dot(cat, kitten) > _dot(cat, invoice)


def _dot(first: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(first, other, strict=True))
