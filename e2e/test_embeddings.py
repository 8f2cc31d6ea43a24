"""Pools that embed and rerank wake for the first request, batch the texts of many callers, and return to zero.

The tests write tiny models with random weights into the bucket. The ranks run on CPUs.
``deploy/helm/daybreak/ci/embed-values.yaml`` has pools of the same names on GPUs, where each rank reserves
half a GPU. ``services/python/tests/deploy/test_embed_values.py`` checks that this fraction reaches Ray.

As in ``test_serving``, the tests share one deployment and run in order, but each can run alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testkit.kubernetes import s3
from testkit.kubernetes.deployment import GATEWAY_PORT, NAME, WAKE_S, Deployment
from testkit.kubernetes.values import pool
from testkit.log import log
from testkit.waiting import wait_until

pytestmark = pytest.mark.full

EMBED, RERANK = "embed", "rerank"
CALLERS = 8
DIMENSIONS = 32
"""How many numbers a vector of the tiny encoder has."""
DEADLINE_S = float(WAKE_S)
TOLERANCE = 1e-4
"""How much a number of a vector may differ between two batches."""


def online_pool_values(workload: str) -> dict[str, Any]:
    """A pool of at most one group, which takes its model from the bucket."""
    settings = pool(workload, ranks=1, hosts=1, idle={"mode": "cluster", "afterSeconds": 5})
    return {
        **settings,
        "kind": "online",
        "model": f"s3://{s3.BUCKET}/models/{workload}",
        "maxGroups": 1,
        "targetLoad": CALLERS,
        "settings": {
            **settings["settings"],
            "capacity": CALLERS,
            "options": {"model_name": f"tiny-{workload}"},
        },
    }


def write_models(deployment: Deployment, folder: Path) -> None:
    """Make the models, and put them into the bucket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn while they are imported
        from testkit.text_models import tiny_cross_encoder, tiny_encoder

        models = {EMBED: tiny_encoder(folder / EMBED), RERANK: tiny_cross_encoder(folder / RERANK)}
    for name, model in models.items():
        for path in sorted(model.rglob("*")):
            if path.is_file():
                key = f"models/{name}/{path.relative_to(model).as_posix()}"
                deployment.store.upload_file(str(path), s3.BUCKET, key)


@pytest.fixture(scope="module")
def gateway(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Adds the pools to the shared installation, until its next upgrade. :returns: the URL of a gateway."""
    write_models(deployment, tmp_path_factory.mktemp("models"))
    pools = {
        **deployment.values["pools"],
        EMBED: online_pool_values(EMBED),
        RERANK: online_pool_values(RERANK),
    }
    also = {"settings": {"http": {"default_pools": {EMBED: EMBED, RERANK: RERANK}}}}
    deployment.release.upgrade({**deployment.values, **also, "pools": pools})
    return deployment.port_forward(f"{NAME}-gateway", GATEWAY_PORT).url


def get(url: str) -> Any:
    """The JSON of a page that must answer with 200."""
    response = httpx2.get(url, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def post(url: str, body: dict[str, Any]) -> Any:
    """Send a request that may wait for a whole wake."""
    headers = {"Daybreak-Deadline-S": str(DEADLINE_S)}
    response = httpx2.post(url, json=body, headers=headers, timeout=DEADLINE_S + 30)
    assert response.status_code == 200, response.text
    return response.json()


def at_once(act: Callable[[int], Any]) -> list[Any]:
    """The results of calls that several callers make at once, in the order of the callers' numbers."""
    with ThreadPoolExecutor(CALLERS) as threads:
        return list(threads.map(act, range(CALLERS)))


def vector(answer: Any) -> list[float]:
    """The only embedding in an answer. It must have ``DIMENSIONS`` numbers."""
    (entry,) = answer["data"]
    numbers: list[float] = entry["embedding"]
    assert len(numbers) == DIMENSIONS
    return numbers


def test_a_question_about_a_pool_at_zero_is_answered_and_wakes_nothing(
    deployment: Deployment, gateway: str
) -> None:
    """The number of groups that the pool needs, which KEDA reads, stays 0."""
    deployment.wait_for_zero(EMBED, head=False)
    health = get(f"{gateway}/health")["pools"]
    assert {health[name]["groups_ready"] for name in (EMBED, RERANK)} == {0}
    assert "gpus_per_group" not in health[EMBED], "the pool runs on CPUs"
    debug = get(f"{gateway}/debug?model=tiny-{EMBED}")
    assert (debug["pool"], debug["groups_ready"]) == (EMBED, 0)
    # The client's connection may still lead to a gateway that started before the upgrade and does not know the pool.
    wait_until(lambda: EMBED in {each.name for each in deployment.client.pools()}, 60, "a new gateway")
    shown = deployment.client.pool(EMBED)
    assert (shown.requests, shown.groups_needed) == (0, 0)
    assert deployment.replicas_wanted(EMBED) == 0
    assert not deployment.kube.group_pods(EMBED)


def test_many_callers_wake_a_pool_and_share_its_batches(deployment: Deployment, gateway: str) -> None:
    """Each caller gets the vector of its own text. A later request with only this text gets the same vector."""
    deployment.wait_for_zero(EMBED, head=False)
    texts = [f"the {colour} cat sat" for colour in ("red", "blue", "green", "old", "young", "big", "small")]
    texts.append("where is the river ?")
    url = f"{gateway}/v1/embeddings"
    answers = at_once(lambda number: vector(post(url, {"input": texts[number], "model": f"tiny-{EMBED}"})))
    (group,) = deployment.wait_for_groups(EMBED, 1)
    debug = get(f"{gateway}/debug?model={EMBED}")
    log(f"  {group} computed batches of {debug['batches']}")
    assert sum(int(size) * count for size, count in debug["batches"].items()) == CALLERS
    for text, answer in zip(texts, answers, strict=True):
        alone = vector(post(url, {"input": [text]}))
        assert max(abs(a - b) for a, b in zip(alone, answer, strict=True)) < TOLERANCE, text
    assert len({tuple(round(number, 3) for number in answer) for answer in answers}) == CALLERS
    # Another gateway than the one that answered may see the group a moment later.
    wait_until(
        lambda: get(f"{gateway}/health")["pools"][EMBED]["groups_ready"] == 1, 60, "the group in /health"
    )


def test_documents_are_ranked_from_zero(deployment: Deployment, gateway: str) -> None:
    """A request wakes the pool that reranks. Its routes `/v1/rerank` and `/reranker/api` give the same order."""
    documents = ["a dog ran", "the red bird flew over the tree", "where is the house ?"]
    answer = post(f"{gateway}/v1/rerank", {"query": "a bird", "documents": documents})
    scores = [entry["relevance_score"] for entry in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(entry["index"] for entry in answer["results"]) == [0, 1, 2]
    pairs = post(f"{gateway}/reranker/api", {"questions": ["a bird"], "texts": documents})
    assert len(pairs) == len(documents)
    order = sorted(range(len(documents)), key=lambda at: -pairs[at])
    assert [entry["index"] for entry in answer["results"]] == order


def test_both_pools_return_to_zero_and_know_what_a_wake_costs(deployment: Deployment, gateway: str) -> None:
    """After the requests no pod is left, and `/health` estimates the next wake of each pool."""
    url = f"{gateway}/v1/embeddings"
    vector(post(url, {"input": "the cat"}))
    post(f"{gateway}/rerank", {"query": "a cat", "texts": ["the cat"]})
    for name in (EMBED, RERANK):
        deployment.wait_for_zero(name, head=False)
        wake = get(f"{gateway}/health")["pools"][name]["wake"]
        log(f"  the last wake of {name}: {wake['last']}")
        assert wake["eta_s"] > 0
