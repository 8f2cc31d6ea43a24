"""An example workload that answers requests: it babbles, word by word. See docs/07-adding-a-workload.md.

Run it from the root of the repository:

    PYTHONPATH=examples DAYBREAK_POOLS__BABBLE__WORKLOAD=babble:SPEC .venv/bin/daybreakd dev
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator

from daybreak_server.workloads.base import Group, WorkloadSpec
from daybreak_server.workloads.serving import Request, RequestError, Response

SPEC = WorkloadSpec(
    name="babble",
    kind="online",
    implementation="babble:Babble",
    capacity=16,  # 16 threads may call `serve` at once, because it only reads the model
)


class Babble:
    """The work of one rank: `load` runs once, `serve` for each request."""

    models = ("babble-1",)

    def load(self, group: Group) -> None:
        """Load the model: for each word, the words that may follow it."""
        text = group.options.get(
            "text", "the sun rises and the day breaks and the sun sets and the night falls"
        )
        words = text.split()
        self.followers: dict[str, list[str]] = defaultdict(list)
        for word, follower in zip(words, [*words[1:], words[0]], strict=True):
            self.followers[word].append(follower)

    def warm_up(self) -> None:
        """Do nothing: the first request is as fast as later ones."""

    def serve(self, request: Request) -> Response:
        """Answer with a stream of words."""
        wanted = request.json()
        start, words = wanted.get("start", "the"), wanted.get("words", 10)
        if start not in self.followers:
            raise RequestError(422, f"The model does not know the word {start!r}.", code="unknown_word")
        body = self._words(start, words, random.Random(wanted.get("seed")), wanted.get("word_s", 0.0))
        return Response(headers={"content-type": "text/plain; charset=utf-8"}, body=body)

    def _words(self, word: str, count: int, choice: random.Random, word_s: float) -> Iterator[bytes]:
        for _ in range(count):
            # Daybreak sends each word at once, and stops here if the client has gone.
            yield f"{word} ".encode()
            time.sleep(word_s)
            word = choice.choice(self.followers[word])
