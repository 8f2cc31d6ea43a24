"""Fills a batch with prefills and decodes up to a number of tokens. This limit divides the prefill of a long turn over
several batches (*chunked prefill*).

The phases are prefill (the model reads a turn's audio, in blocks) and decode (it writes the next token of a turn).
Without a limit, a step that reads a long turn takes as long as that turn needs, and every session of the batch waits
that long for its next token. With a limit, no step takes longer than a step with as many tokens as the limit allows.
Decodes come first, because users wait for their tokens. The rest of the batch is filled with blocks of audio: first of
the turn that the model has read in part, then of the turns that wait behind it. So only the last turn of a batch can be
cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import TypeVar

from daybreak_server.batching.iterations.queues import Waiting
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.batching.iterations.strategy import Choice

K = TypeVar("K", bound=Hashable)


def fill(waiting: Waiting[K], rules: IterationRules) -> Choice[K] | None:
    """The next batch; ``None`` if no session waits. A batch has at most ``max_batch_tokens`` tokens, but always has
    room for one block and one token.

    While a turn waits for its prefill, one place and one block are kept for it, so prefill does not starve. If a
    batch has only one place, the two phases alternate.
    """
    size, block, decode = rules.max_batch_size, waiting.block_tokens, waiting.decode
    budget = max(rules.max_batch_tokens, block + 1)
    if not waiting.prefill or (size == 1 and decode and not waiting.decoded_last):
        return Choice(decode=decode.first(min(size, budget))) if decode else None
    decoding = decode.first(min(size - 1, budget - block))
    left = (budget - len(decoding)) // block
    pieces: dict[K, int] = {}
    for session, ready in itertools.islice(waiting.prefill.items(), size - len(decoding)):
        if left:
            pieces[session] = min(left, ready.blocks)
            left -= pieces[session]
    return Choice(prefill=tuple(pieces), blocks=tuple(pieces.values()), decode=decoding)
