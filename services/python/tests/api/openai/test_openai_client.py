"""Tests with OpenAI's unmodified client, which needs only the URL of a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from testkit.waiting import wait_until

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def connect() -> Iterator[Callable[..., openai.OpenAI]]:
    """A function that creates clients of a gateway. These clients never retry."""
    with ExitStack() as stack:
        yield lambda models: stack.enter_context(
            openai.OpenAI(base_url=f"{models.api.url}/v1", api_key="none", max_retries=0, timeout=60)
        )


@pytest.fixture
def ready(start_models, connect) -> tuple[Any, openai.OpenAI]:
    """A ready model ``small`` and a client."""
    models = start_models()
    models.start_worker("w1")
    models.register("small", min_replicas=1)
    models.wait_for("small", "ready")
    return models, connect(models)


def test_chat_answers_from_a_model_that_its_first_request_starts(start_models, connect):
    models = start_models()
    models.start_worker("w1")
    models.register("small")
    raw = connect(models).chat.completions.with_raw_response.create(
        model="small", messages=MESSAGES, extra_body={"tokens": 3}
    )
    completion = raw.parse()
    assert completion.choices[0].message.content == "word word word "
    assert (completion.model, completion.usage.completion_tokens) == ("small", 3)
    assert (raw.headers["daybreak-model"], raw.headers["daybreak-worker"]) == ("small", "w1")


def test_text_completions_whole_and_streamed(ready):
    _, client = ready
    whole = client.completions.create(model="small", prompt="hello", extra_body={"tokens": 2})
    assert whole.choices[0].text == "word word "
    parts = client.completions.create(model="small", prompt="hello", stream=True, extra_body={"tokens": 4})
    assert [part.choices[0].text for part in parts] == ["x"] * 4


def test_embeddings_keep_the_order_of_the_texts(ready):
    _, client = ready
    answer = client.embeddings.create(model="small", input=["one two", "three"])
    assert [found.embedding for found in answer.data] == [[7.0, 3.0], [5.0, 5.0]]


def test_models_are_listed_and_retrieved(ready):
    models, client = ready
    models.register("other")
    listed = {model.id: model for model in client.models.list()}
    assert {"small", "other"} <= listed.keys()
    assert (listed["small"].object, listed["small"].state, listed["other"].state) == (
        "model",
        "ready",
        "registered",
    )
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("unknown")
    assert caught.value.code == "model_not_found"


def test_the_first_part_of_a_stream_arrives_before_the_engine_has_made_the_last(ready):
    models, client = ready
    (worker,) = models.workers
    stream = client.chat.completions.create(
        model="small", messages=MESSAGES, stream=True, extra_body={"tokens": 4, "pause": 0.3}
    )
    assert next(stream).choices[0].delta.content == "x"
    assert worker.events("end") == []
    assert len(worker.events("token")) < 4
    assert len(list(stream)) == 3
    wait_until(lambda: worker.events("end"), 30, "the engine to finish")


def test_a_stream_that_the_client_closes_ends_the_work_at_the_engine(ready):
    models, client = ready
    (worker,) = models.workers
    with client.chat.completions.create(
        model="small", messages=MESSAGES, stream=True, extra_body={"tokens": 10_000, "pause": 0.1}
    ) as stream:
        next(stream)
    wait_until(lambda: worker.events("gone"), 30, "the engine to stop")
    assert worker.events("end") == []
    wait_until(lambda: models.show("small")["state"] == "ready", 30, "the model to be ready")


async def test_a_request_that_is_cancelled_ends_the_work_at_the_engine(ready):
    models, client = ready
    (worker,) = models.workers
    async with openai.AsyncOpenAI(
        base_url=client.base_url, api_key="none", max_retries=0, timeout=1
    ) as impatient:
        with pytest.raises(openai.APITimeoutError):
            await impatient.chat.completions.create(
                model="small", messages=MESSAGES, extra_body={"tokens": 10_000, "pause": 0.1}
            )
    wait_until(lambda: worker.events("gone"), 30, "the engine to stop")


def test_a_stream_whose_engine_dies_raises_and_never_looks_complete(ready):
    _, client = ready
    stream = client.chat.completions.create(
        model="small", messages=MESSAGES, stream=True, extra_body={"tokens": 5, "crash": "within"}
    )
    parts = []
    with pytest.raises(openai.APIConnectionError):
        parts.extend(stream)
    assert len(parts) == 1


def test_an_unknown_model_is_a_not_found_error(ready):
    _, client = ready
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="unknown", messages=MESSAGES)
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "'unknown'" in caught.value.message


def test_a_request_without_a_model_is_a_bad_request_error(ready):
    _, client = ready
    with pytest.raises(openai.BadRequestError, match="names no model"):
        client.chat.completions.create(model="", messages=MESSAGES)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_an_error_of_the_engine_reaches_the_client_as_it_is(ready, status, error):
    _, client = ready
    with pytest.raises(error, match="The engine refuses this") as caught:
        client.chat.completions.create(model="small", messages=MESSAGES, extra_body={"status": status})
    assert (caught.value.status_code, caught.value.type) == (status, "engine_error")


def test_a_model_that_is_not_ready_in_time_says_why_and_when_to_retry(start_models, connect):
    models = start_models()
    models.register("big")
    with pytest.raises(openai.InternalServerError, match="No worker is registered") as caught:
        connect(models).chat.completions.create(
            model="big", messages=MESSAGES, extra_headers={"Daybreak-Deadline-S": "1"}
        )
    assert (caught.value.status_code, caught.value.code) == (503, "not_ready")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.body["wake"]["phase"] == "placing"


def test_the_clients_own_retries_wait_for_a_model(start_models, connect):
    """After a 503, the client waits as long as ``Retry-After`` says, and sends the request again."""
    models = start_models()
    models.register("small")
    client = connect(models).with_options(max_retries=10)
    models.start_worker("w1", engine={})
    completion = client.chat.completions.create(
        model="small", messages=MESSAGES, extra_headers={"Daybreak-Deadline-S": "0.2"}
    )
    assert completion.choices[0].message.content == "word "
