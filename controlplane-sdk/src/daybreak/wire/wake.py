"""The wake of a pool, as tasks and errors show it."""

from __future__ import annotations

from daybreak.wire.base import ResponseModel, Time


class Wake(ResponseModel):
    """The wake of a pool that has no ready group yet. ``message`` says what prevents the wake, if anything does."""

    phase: str
    since: Time | None = None
    eta_s: float | None = None
    message: str | None = None
