"""On a GPU, both kinds of paged attention give the logits that a CPU computes for the whole stream at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import Prefill
from daybreak_server.workloads.speech.model import Speech
from testkit.speech_models import finish, loaded, noise, random_folder, whole_stream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("attention", ["gather", "flex"])
def test_sessions_on_a_gpu_get_the_logits_of_the_whole_computation(tmp_path: Path, attention: str) -> None:
    folder = random_folder(tmp_path)
    model = Speech()
    model.load(Group(device="cuda", options={"model": str(folder), "attention": attention, "cache_mb": 8}))
    cpu = loaded(folder, cache_mb=8)
    recorded: dict[str, list[torch.Tensor]] = {"a": [], "b": []}
    step = model._lm.step

    def recording(tables: list[object], new: list[torch.Tensor]) -> torch.Tensor:
        logits = step(tables, new)  # type: ignore[arg-type]
        names = {id(session.table): name for name, session in model._sessions.items()}
        for table, row in zip(tables, logits.cpu(), strict=True):
            recorded[names[id(table)]].append(row)
        return logits

    model._lm.step = recording  # type: ignore[assignment,method-assign]
    turns = {name: [noise(0.96, seed=at + shift) for at in range(8)] for name, shift in (("a", 0), ("b", 50))}
    texts: dict[str, list[list[int]]] = {"a": [], "b": []}
    for name in turns:
        model.open(name, model.shape.pairs[1])
    for at in range(8):
        batch = [Prefill(session=name, audio=audio[at]) for name, audio in turns.items()]
        for name, written in finish(model, model.prefill(batch)).items():
            texts[name].append([each.token for each in written if each.token is not None])
    marker = model._vocabulary.marker(model.shape.pairs[1])
    for name, audio in turns.items():
        expected = whole_stream(cpu, audio, texts[name], *marker)
        # A turn has one more step than it has tokens. The last step chooses the end of the turn, or a token that is
        # dropped because the turn has reached its limit.
        rows = torch.cat([rows[: len(text) + 1] for rows, text in zip(expected, texts[name], strict=True)])
        torch.testing.assert_close(torch.stack(recorded[name]), rows, atol=5e-3, rtol=5e-3)
