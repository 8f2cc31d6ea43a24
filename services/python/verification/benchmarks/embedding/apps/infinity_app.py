"""infinity: ``python -m …infinity_app v2 …`` runs the command ``infinity_emb`` and counts its batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from infinity_emb.cli import cli
from infinity_emb.transformer.embedder.sentence_transformer import SentenceTransformerPatched

from verification.benchmarks.embedding.apps.common import COUNTS, BatchCount


def count_batches() -> None:
    """Count each batch that the model computes."""
    counts = BatchCount(Path(os.environ[COUNTS]))
    encode_core = SentenceTransformerPatched.encode_core

    def counted(self: Any, features: dict[str, Any]) -> Any:
        counts.add(len(features["input_ids"]))
        return encode_core(self, features)

    SentenceTransformerPatched.encode_core = counted


if __name__ == "__main__":
    count_batches()
    cli()
