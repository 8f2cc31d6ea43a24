"""Full garbage collections stop a process for as long as it has objects: with thousands of streams, a second.

Measured with 10,000 SSE clients (Python 3.11, ``verification.benchmarks.streams``): 1.1 s each, eleven of them while the
clients came, and each found nothing, since a stream that ends leaves no cycle behind. Events that arrive
meanwhile are late by that much, for everybody.
"""

from __future__ import annotations

import gc

THRESHOLDS = (2_000, 20, 100)
"""Objects that are new and stay; young collections before a middle one; middle ones before a full one."""


def tune_gc() -> None:
    """From now on a full collection comes after some four million objects that stay, not after seventy thousand;
    and what is there already (modules, routes, models of the API) is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
