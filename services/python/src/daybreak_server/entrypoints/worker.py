"""A worker: runs model servers on a machine outside Ray. It needs no Ray, no torch and no Redis."""

from __future__ import annotations

import asyncio
import logging

from daybreak_server.model_worker.worker import ListenError, ModelWorker, WorkerAddress
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.settings.tree import Settings


def run_worker(settings: Settings, *, address: WorkerAddress) -> int:
    """Run until a signal arrives.

    :returns: 0, or 1 if the worker cannot listen, the gateway refuses the worker, or a bug ends the worker.
    """
    log_to_stderr(settings.log)
    try:
        worker = ModelWorker(address, settings.workers)
    except ListenError as exc:
        logging.getLogger(__name__).error("%s", exc)
        return 1
    return asyncio.run(worker.run())
