"""Workers outside Ray start when a model gets requests, and stop afterwards. The engine is a real llama.cpp server.

The engine's image contains nothing of Daybreak. Each test continues with the worker as the previous test has left it,
but each test can also run alone.
"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest

from e2e.every_kind import MODEL, add_every_kind
from e2e.serving_clients import Load, answered_by
from testkit.kubernetes.deployment import GATEWAY_PORT, NAME, WAKE_S, Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.core

ALIAS = MODEL["alias"]
PODS = "daybreak.dev/workers=llama"
DEADLINE_S = float(WAKE_S)
ZERO_S = 90
PARTS = 24


def question(**options: Any) -> dict[str, Any]:
    """A request for an answer of a certain length."""
    messages = [{"role": "user", "content": "Count from one to one hundred in words."}]
    # `ignore_eos` is an option of llama.cpp: the answer does not end before `max_tokens`.
    return {"model": ALIAS, "messages": messages, "max_tokens": PARTS, "ignore_eos": True, **options}


@pytest.fixture(scope="module")
def gateway_url(deployment: Deployment) -> str:
    """Adds a worker and a model. The installation keeps both until its next upgrade. :returns: the gateway's URL."""
    add_every_kind(deployment)
    return deployment.port_forward(f"{NAME}-gateway", GATEWAY_PORT).url


def model(gateway_url: str) -> dict[str, Any]:
    """What the gateway says about the model."""
    found: dict[str, Any] = (
        httpx2.get(f"{gateway_url}/v1/models/{ALIAS}", timeout=30).raise_for_status().json()
    )
    return found


def ask(gateway_url: str, body: dict[str, Any], *, deadline_s: float = DEADLINE_S) -> httpx2.Response:
    """Request a chat completion. The gateway may keep the request until its deadline while a worker starts."""
    return httpx2.post(
        f"{gateway_url}/v1/chat/completions",
        json=body,
        headers={"Daybreak-Deadline-S": str(deadline_s)},
        timeout=deadline_s + 30,
    )


def wait_for_zero(deployment: Deployment, gateway_url: str) -> None:
    """Wait until no worker is left, and the model has no replica."""
    wait_until(lambda: not deployment.kube.pods(PODS), timeout_s=ZERO_S, what="no pods of workers")
    wait_until(
        lambda: model(gateway_url)["state"] == "registered", timeout_s=30, what="a model without replicas"
    )


def test_a_request_to_a_model_without_workers_is_held_until_one_has_started(
    deployment: Deployment, gateway_url: str
) -> None:
    """KEDA starts a pod with a worker. The worker registers, loads the model, and answers the request.

    Before that, a request whose deadline ends during the wake gets 503 with the phase. The chart's job has already
    registered the model, so a second registration of the same alias gets 409.
    """
    wait_for_zero(deployment, gateway_url)
    again = httpx2.post(f"{gateway_url}/v1/models/register", json={**MODEL, "source": "/other"}, timeout=30)
    assert again.status_code == 409, again.text
    late = ask(gateway_url, question(), deadline_s=1)
    assert late.status_code == 503, late.text
    log(f"  503, Retry-After: {late.headers['Retry-After']}, {late.json()['error']['message']}")
    assert int(late.headers["Retry-After"]) >= 1
    began = time.monotonic()
    answer = ask(gateway_url, question())
    assert answer.status_code == 200, answer.text
    content = answer.json()["choices"][0]["message"]["content"]
    log(f"  {content!r} after {time.monotonic() - began:.1f} s")
    assert content.strip()
    (pod,) = deployment.kube.pods(PODS)
    assert (answered_by(answer), answer.headers["Daybreak-Model"]) == (pod.metadata.name, ALIAS)
    found = model(gateway_url)
    assert (found["state"], found["workers"]) == ("ready", [pod.metadata.name])


def test_an_answer_is_streamed(gateway_url: str) -> None:
    """The first part arrives before the model has written the last one."""
    arrived: list[float] = []
    parts: list[str] = []
    last = ""
    body = question(stream=True)
    headers = {"Daybreak-Deadline-S": str(DEADLINE_S)}
    with httpx2.stream(
        "POST", f"{gateway_url}/v1/chat/completions", json=body, headers=headers, timeout=DEADLINE_S
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                arrived.append(time.monotonic())
                parts += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
            last = line or last
    assert last == "data: [DONE]"
    assert sum(map(bool, parts)) > PARTS / 2
    assert arrived[-1] - arrived[0] > 0.1, "all parts arrived at once"


def test_no_request_fails_when_the_pod_of_a_worker_is_deleted_or_killed(
    deployment: Deployment, gateway_url: str
) -> None:
    """A deleted pod finishes its answers.

    If a pod is killed, the next pod gets the requests that the killed pod has not answered.
    """
    url = f"{gateway_url}/v1/chat/completions"
    with Load(url, question(), clients=2, deadline_s=DEADLINE_S) as load:

        def next_worker(*before: str) -> str:
            """Wait for answers of a worker that is not in ``before``. :returns: its name."""
            wait_until(lambda: set(load.groups) - set(before), timeout_s=WAKE_S, what="answers of a worker")
            (name,) = set(load.groups) - set(before)
            return name

        first = next_worker()
        log(f"  deleting {first}")
        deployment.kube.delete_pod(first)
        second = next_worker(first)
        log(f"  killing {second}")
        deployment.kube.delete_pod(second, force=True)
        third = next_worker(first, second)
    log(f"  answers: {dict(load.statuses)}, by {dict(load.groups)}")
    assert set(load.statuses) == {200}
    assert set(load.groups) == {first, second, third}


def test_without_requests_the_model_stops_and_then_its_worker(
    deployment: Deployment, gateway_url: str
) -> None:
    """The replica stops after the model's ``idle_s``, and KEDA then removes the pod."""
    wait_for_zero(deployment, gateway_url)
    workers = httpx2.get(f"{gateway_url}/v1/workers", timeout=30).raise_for_status().json()["workers"]
    assert workers == []
