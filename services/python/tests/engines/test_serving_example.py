"""The example workload that answers requests does what its page of the tour says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_the_example_that_answers_requests_streams_words(
    serving: Callable[..., Any], client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    pool, _, url = serving(workload="babble:SPEC")
    (group,) = pool.view().groups
    assert (group.models, group.capacity) == (("babble-1",), 16)
    answer = client.post(f"{url}/v1/babble", json={"start": "day", "words": 3})
    assert (answer.text, answer.headers["transfer-encoding"]) == ("day breaks and ", "chunked")
    refused = client.post(url, json={"start": "moon"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_word")
    seeded = [client.post(url, json={"words": 50, "seed": 7}).text for _ in range(2)]
    assert seeded[0] == seeded[1]
