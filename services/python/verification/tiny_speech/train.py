"""Trains the tiny speech translator: `python -m verification.tiny_speech.train --data DIR --out DIR --steps 1800`.

The method:

- data: `draw.py` synthesizes sentences of the grammar in advance, and `streams.py` joins many of them into streams;
- loss: cross-entropy on the tokens of each turn and on its end, plus 0.5 times CTC over the English words. CTC
  teaches the encoder to recognize words before the language model can use the encoder's output;
- AdamW; warm-up, a plateau, and a linear decay over the last 35 % of the steps (`DECAY`);
- result: an average of the weights (EMA), which is written every 100 steps, so that there is always a
  recent model.

Several processes (`--processes`) train together, each with one thread. They average their gradients at each step. To
start the decay early, write a number of steps to the file `decay` in the output folder. The decay then starts within
ten steps and takes this number of steps. Then the training ends. If the decay has already begun, the file has no
effect.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from daybreak_server.workloads.speech.encoder import EncoderConfig, SpeechEncoder
from daybreak_server.workloads.speech.language_model import LanguageModel, LanguageModelConfig
from verification.tiny_speech.lexicon import END_OF_TURN, ENGLISH, VOCABULARY
from verification.tiny_speech.streams import IGNORE, Batch, Streams

LOG_EVERY: Final = 50
SAVE_EVERY: Final = 100
WARM_UP: Final = 50
DECAY: Final = 0.35
TURN_BLOCKS: Final = (1, 2, 4)
"""The lengths of turns, in blocks. The model loses words in turns that are longer than the longest of these."""


class Translator(nn.Module):
    """Encoder, language model, and the CTC output, which only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(EncoderConfig())
        self.lm = LanguageModel(LanguageModelConfig(vocabulary=len(VOCABULARY)))
        nn.init.normal_(self.lm.embed.weight, std=0.5)
        self.ctc = nn.Linear(self.encoder.config.width, len(ENGLISH) + 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The CTC logits of each state of the encoder, and the language model's logits of each position."""
        states = self.encoder(batch.mel)
        speech = self.encoder.adapt(states)
        picked = batch.speech.clamp(min=0)[..., None].expand(-1, -1, speech.shape[-1])
        is_speech = batch.speech[..., None] >= 0
        x = torch.where(is_speech, speech.gather(1, picked), self.lm.embed(batch.tokens))
        return self.ctc(states), self.lm(x, batch.starts)


def losses(model: Translator, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, CTC, and the share of text tokens that are right."""
    ctc_logits, logits = model(batch)
    entropy = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE)
    spoken = ctc_logits.log_softmax(-1).transpose(0, 1)
    lengths = torch.full((len(batch.mel),), spoken.shape[0])
    ctc = functional.ctc_loss(spoken, batch.words, lengths, batch.word_counts, zero_infinity=True)
    text = batch.labels > END_OF_TURN
    return entropy, ctc, (logits.argmax(-1) == batch.labels)[text].float().mean()


class _Schedule:
    """The learning rate by step. The file ``decay`` moves the start of the decay and the end of the training."""

    def __init__(self, steps: int, rate: float, folder: Path) -> None:
        self.steps, self.rate, self.file = steps, rate, folder / "decay"
        self.decay_from = int(steps * (1 - DECAY))

    def look(self, step: int, processes: int) -> None:
        """Read the file. All processes use the number of steps that the first process reads."""
        requested = torch.tensor([int(self.file.read_text()) if self.file.exists() else 0])
        if processes > 1:
            dist.broadcast(requested, 0)
        if step < self.decay_from and int(requested):
            self.decay_from, self.steps = step, step + int(requested)

    def __call__(self, step: int) -> float:
        left = (self.steps - step) / max(1, self.steps - self.decay_from)
        return self.rate * min(1.0, (step + 1) / WARM_UP) * min(1.0, max(0.01, left))


def _save(average: Translator, step: int, folder: Path) -> None:
    weights = {name: part.detach().contiguous() for name, part in average.state_dict().items()}
    save_file(weights, folder / "new.safetensors", {"step": str(step)})
    (folder / "new.safetensors").replace(folder / f"step-{step:05d}.safetensors")


def _optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    matrices = [part for part in model.parameters() if part.ndim > 1]
    vectors = [part for part in model.parameters() if part.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def _average_gradients(model: nn.Module, processes: int) -> None:
    """Average the gradients over the processes, and clip their norm to 1."""
    flat = torch.cat([part.grad.flatten() for part in model.parameters() if part.grad is not None])
    if processes > 1:
        dist.all_reduce(flat)
        flat /= processes
    flat *= min(1.0, 1.0 / (float(flat.norm()) + 1e-6))
    at = 0
    for part in model.parameters():
        part.grad = flat[at : at + part.numel()].view_as(part)
        at += part.numel()


def run(rank: int, options: argparse.Namespace, rendezvous: str) -> None:
    """One process of the training."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    processes = options.processes
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    streams, model = Streams(options.data, options.seed * 100 + rank), Translator()
    if options.start:
        model.load_state_dict(load_file(options.start))
    average, schedule = copy.deepcopy(model), _Schedule(options.steps, options.rate, options.out)
    optimizer, shared = _optimizer(model, options.rate), np.random.default_rng(options.seed)
    count = sum(part.numel() for part in model.parameters())
    began, step, sums, audio_seconds = time.monotonic(), 0, np.zeros(3), 0.0
    if rank == 0:
        print(f"{count:,} parameters, {len(streams.items):,} sentences", flush=True)
    while step < schedule.steps:
        if step % 10 == 0:
            schedule.look(step, processes)
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        longest = 6.5 if step < 400 and not options.start else 13.5
        seconds, blocks = (
            float(shared.uniform(3.8, longest)),
            int(shared.choice(TURN_BLOCKS, p=[0.2, 0.4, 0.4])),
        )
        size = max(4, round(options.seconds / seconds))
        entropy, ctc, right = losses(model, streams.batch(size, seconds, blocks))
        optimizer.zero_grad()
        (entropy + 0.5 * ctc).backward()
        _average_gradients(model, processes)
        optimizer.step()
        step += 1
        audio_seconds += size * seconds * processes
        with torch.no_grad():
            for mean, part in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(part, 1 - min(0.998, step / (step + 50)))
        if rank == 0:
            sums += [entropy.item(), ctc.item(), right.item()]
            if step % LOG_EVERY == 0:
                losses_now = "cross-entropy {:.3f}, CTC {:.3f}, tokens right {:.4f}".format(
                    *(sums / LOG_EVERY)
                )
                minutes = (time.monotonic() - began) / 60
                print(
                    f"step {step}, {minutes:.1f} min, {audio_seconds / 3600:.1f} h of audio: {losses_now}",
                    flush=True,
                )
                sums[:] = 0
            if step % SAVE_EVERY == 0 or step == schedule.steps:
                _save(average, step, options.out)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--seconds", type=float, default=120, help="seconds of audio in a step of each process"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--start", type=Path, help="continue from these weights")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        spawn(run, (options, f"{folder}/rendezvous"), nprocs=options.processes)


if __name__ == "__main__":
    main()
