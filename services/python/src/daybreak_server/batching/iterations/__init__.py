"""Forms batches of streaming sessions, with a new batch for each step of the model.

Pure: no asyncio, no clock, no torch. The caller passes the time and runs the batches. See :mod:`.scheduler`.
"""

from __future__ import annotations

from daybreak_server.batching.iterations.rules import IterationRules, Strategy
from daybreak_server.batching.iterations.scheduler import Batch, Scheduler, WaitUntil
from daybreak_server.batching.iterations.trace import BatchRecord, Phase, Trace

__all__ = ["Batch", "BatchRecord", "IterationRules", "Phase", "Scheduler", "Strategy", "Trace", "WaitUntil"]
