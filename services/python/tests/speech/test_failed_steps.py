"""One call of a torch module fails during a step, and the step is repeated for each session alone.

Whichever call fails, no token of any session changes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from daybreak_server.domain.sessions import SessionId
from daybreak_server.engines.sessions.model_steps import ModelSteps
from daybreak_server.workloads.sessions import Prefill, Token
from daybreak_server.workloads.speech.model import Speech
from testkit.hub_speech_folders import hub_folder
from testkit.speech_models import loaded, noise, random_folder, turns_of

SESSIONS, TURNS, BLOCKS = 3, 3, 2


TRIES = {"causal": 40, "whisper": 5}
"""How many calls fail, each in a separate run. Runs with Whisper's encoder take longer, so there are fewer."""


@pytest.fixture(scope="module", params=TRIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Speech:
    folder = tmp_path_factory.mktemp("model") / "m"
    if request.param == "causal":
        random_folder(folder)
    else:
        hub_folder(folder, request.param)
    return loaded(folder, cache_mb=8)


class InjectedError(RuntimeError):
    """What a device might raise."""


@contextmanager
def failing_at(call: int | None) -> Iterator[list[int]]:
    """Count the calls of all modules. The call with the number ``call`` raises an error."""
    calls = [0]

    def before(_module: torch.nn.Module, _inputs: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise InjectedError

    hook = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield calls
    finally:
        hook.remove()


def serve(model: Speech) -> dict[str, list[int | None]]:
    """Serve all sessions at once. Turns of one session begin while other sessions decode.

    :returns: the tokens of each session.
    """
    steps = ModelSteps(model)
    names = [SessionId(str(number)) for number in range(SESSIONS)]
    size = TURNS * BLOCKS * model.shape.block_samples / 16_000
    turns = {name: turns_of(noise(size, seed=number), model, BLOCKS) for number, name in enumerate(names)}
    for number, name in enumerate(names):
        model.open(name, model.shape.pairs[number % len(model.shape.pairs)])
    written: dict[str, list[int | None]] = {name: [] for name in names}
    decodes: set[SessionId] = set()
    round_ = 0
    while decodes or any(turns.values()):
        round_ += 1
        begun = [name for number, name in enumerate(names) if round_ > 2 * number]
        reads = [name for name in begun if turns[name] and name not in decodes]
        results = steps.run(
            [Prefill(session=name, audio=turns[name].pop(0)) for name in reads], sorted(decodes)
        )
        for name, result in results.items():
            assert isinstance(result, Token), result
            written[name].append(result.token)
            (decodes.discard if result.token is None else decodes.add)(name)
    for name in names:
        model.close(name)
    assert model.memory()[0] == 0, "pages are lost"
    return written


@pytest.mark.heavy
def test_a_step_that_fails_anywhere_changes_no_token(
    model: Speech, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    tries = TRIES[request.node.callspec.params["model"]]
    with failing_at(None) as calls:
        expected = serve(model)
    assert all(any(tokens) for tokens in expected.values()), "nothing was written, so nothing is compared"
    for call in sorted(random.Random(1).sample(range(1, calls[0] + 1), tries)):
        caplog.clear()
        with failing_at(call):
            found = serve(model)
        assert "has failed; repeating it for each alone" in caplog.text
        assert found == expected, f"the module call {call} of {calls[0]} raised"
