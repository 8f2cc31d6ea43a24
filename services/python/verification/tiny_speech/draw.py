"""Makes random spoken sentences: `python -m verification.tiny_speech.draw --out DIR --sentences 6000 --seed 1`.

It writes two files. `mel.SEED.f16` has the log-mel frames of all sentences (float16). `meta.SEED.jsonl` has a line for
each sentence: the position of its frames, its words, the end of each word, and its target tokens. Run one process per
core, each with its own seed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrix products are slower on more threads

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch

from daybreak_server.workloads.speech.features import HOP, OVERLAP, SAMPLE_RATE, log_mel
from verification.tiny_speech.lexicon import ENGLISH
from verification.tiny_speech.synthesis import Synthesiser, random_speech


def draw(out: Path, sentences: int, seed: int) -> float:
    """Write the sentences of one seed. Returns how many seconds of speech they have."""
    out.mkdir(parents=True, exist_ok=True)
    rng, phase, synthesiser, frames = random.Random(seed), np.random.default_rng(seed), Synthesiser(), 0
    with (out / f"mel.{seed}.f16").open("wb") as mels, (out / f"meta.{seed}.jsonl").open("w") as lines:
        for _ in range(sentences):
            sentence, speech = random_speech(rng, synthesiser, held_out=False)
            lead = int(phase.integers(0, HOP))
            samples = speech.samples / max(1e-3, float(np.abs(speech.samples).max())) * 0.7
            rest = HOP + -(lead + len(samples)) % HOP
            padded = np.pad(samples, (OVERLAP + lead, rest)).astype(np.float32)
            mel = log_mel(torch.from_numpy(padded)).numpy().astype(np.float16)
            mel.tofile(mels)
            line = {
                "at": frames,
                "frames": len(mel),
                "words": [ENGLISH.index(word) + 1 for word in sentence.words],
                "ends": [round((end + lead) / SAMPLE_RATE, 3) for end in speech.word_ends],
                "targets": sentence.targets,
            }
            lines.write(json.dumps(line) + "\n")
            frames += len(mel)
    return frames * HOP / SAMPLE_RATE


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{draw(options.out, options.sentences, options.seed):.0f} s of speech")


if __name__ == "__main__":
    main()
