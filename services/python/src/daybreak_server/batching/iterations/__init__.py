"""Forms batches of streaming sessions, with a new batch for each step of the model.

Pure: no asyncio, no clock, no torch. The caller passes the time and runs the batches. See :mod:`.scheduler`.
"""

from __future__ import annotations

from daybreak_server.batching.iterations.history import BatchHistory, BatchRecord, Phase
from daybreak_server.batching.iterations.queues import Queue, Ready, Waiting
from daybreak_server.batching.iterations.rules import IterationRules, Strategy
from daybreak_server.batching.iterations.scheduler import Batch, Scheduler
from daybreak_server.batching.iterations.strategy import BatchStrategy, Choice, WaitUntil, WrongChoiceError

__all__ = [
    "Batch",
    "BatchHistory",
    "BatchRecord",
    "BatchStrategy",
    "Choice",
    "IterationRules",
    "Phase",
    "Queue",
    "Ready",
    "Scheduler",
    "Strategy",
    "WaitUntil",
    "Waiting",
    "WrongChoiceError",
]
