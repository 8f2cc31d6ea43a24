"""Runs the steps of a :class:`~daybreak_server.workloads.sessions.SessionModel`.

A model with the method ``step`` computes both phases of a batch (prefill and decode) in one call. Any other model gets
a call for each phase. A model that inherits ``step``, but overrides ``prefill`` or ``decode``, gets a call for each
phase too.

If a call raises, it is repeated for each of its sessions alone. If the model raises again for a session, that session
gets the error as its result. But if all sessions of a call (two or more) would get an error, and the model raised at
least one of these errors, the sessions are not the cause. :meth:`ModelSteps.run` then raises the model's error, and
other groups get the sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.text import storable
from daybreak_server.workloads.base import WorkloadError
from daybreak_server.workloads.sessions import (
    MixedSessionModel,
    Prefill,
    SessionFailedError,
    SessionModel,
    StepResult,
)

_log = logging.getLogger(__name__)
Result = StepResult | WorkloadError
Input = Prefill | str
"""The audio of a session, or the id of a session that decodes."""


class ModelSteps:
    """See the module."""

    def __init__(self, model: SessionModel) -> None:
        self._model = model
        self._mixes = callable(getattr(model, "step", None)) and not _bypassed(type(model))
        self.block_tokens = model.shape.block_tokens if self._mixes else 0
        """How many tokens a block of audio has; 0 if the model can read a turn only as a whole."""

    def run(self, prefill: Sequence[Prefill], decode: Sequence[SessionId]) -> dict[SessionId, Result]:
        """The result of each session. The sessions of ``prefill`` come first."""
        pieces: dict[SessionId, Input] = {SessionId(item.session): item for item in prefill}
        tokens: dict[SessionId, Input] = {session: str(session) for session in decode}
        if self._mixes:
            return _results(self._mixed, {**pieces, **tokens})
        return {**_results(self._separate, pieces), **_results(self._separate, tokens)}

    def _mixed(self, inputs: Sequence[Input]) -> Sequence[Result]:
        prefill, decode = _parted(inputs)
        begun, continued = cast("MixedSessionModel", self._model).step(prefill, decode)
        return [*begun, *continued]

    def _separate(self, inputs: Sequence[Input]) -> Sequence[Result]:
        """Run a step of one phase."""
        prefill, decode = _parted(inputs)
        return self._model.prefill(prefill) if prefill else self._model.decode(decode)


def _bypassed(model: type) -> bool:
    """Whether ``prefill`` or ``decode`` belongs to a subclass of the class that has ``step``."""
    classes = model.__mro__

    def place(method: str) -> int:
        return next((place for place, each in enumerate(classes) if method in vars(each)), len(classes))

    return min(place("prefill"), place("decode")) < place("step")


def _parted(inputs: Sequence[Input]) -> tuple[list[Prefill], list[str]]:
    prefill = [item for item in inputs if isinstance(item, Prefill)]
    return prefill, [item for item in inputs if isinstance(item, str)]


def _results(
    step: Callable[[Sequence[Input]], Sequence[Result]], inputs: Mapping[SessionId, Input]
) -> dict[SessionId, Result]:
    if not inputs:
        return {}
    try:
        return dict(zip(inputs, step(list(inputs.values())), strict=True))
    except Exception:
        _log.exception("a step of %d sessions has failed; repeating it for each alone", len(inputs))
    results: dict[SessionId, Result] = {}
    error: Exception | None = None
    for session, item in inputs.items():
        try:
            results[session] = step([item])[0]
        except Exception as exc:
            error = exc
            results[session] = SessionFailedError(cause_of(exc).message)
    failed = sum(isinstance(result, WorkloadError) for result in results.values())
    if error is not None and failed == len(inputs) > 1:
        raise error
    return results


def cause_of(exc: Exception) -> Cause:
    """Why a session fails."""
    code = exc.code if isinstance(exc, WorkloadError) else SessionFailedError.code
    return Cause(reason=code, message=storable(exc) or type(exc).__name__)
