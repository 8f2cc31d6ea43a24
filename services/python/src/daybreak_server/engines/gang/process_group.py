"""The data group: ``torch.distributed``, over a store whose port the leader lets the system choose.

Imported only where there is more than one rank.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_tcp_store: Any = vars(dist)["TCPStore"]  # torch does not export its type


def open_store(host: str, *, size: int, timeout_s: float) -> Any:
    """The leader's store, on a port of the system's choice (``store.port``)."""
    return _tcp_store(
        host, 0, size, is_master=True, timeout=timedelta(seconds=timeout_s), wait_for_workers=False
    )


def join_store(host: str, port: int, *, size: int, timeout_s: float) -> Any:
    """A follower's connection to the leader's store."""
    return _tcp_store(
        host, port, size, is_master=False, timeout=timedelta(seconds=timeout_s), wait_for_workers=False
    )


def join(store: Any, *, rank: int, size: int, device: str, timeout_s: float) -> None:
    """Make the default process group, and connect every pair of ranks now: later a lazy connect could hang.

    :raises RuntimeError: when a rank does not come in time.
    """
    if device == "cuda":
        torch.cuda.set_device(0 if torch.cuda.device_count() == 1 else rank % torch.cuda.device_count())
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s)
    )
    probe = torch.ones(1, device=device)
    dist.all_reduce(probe)
    if int(probe.item()) != size:
        raise RuntimeError(f"{size} ranks added up to {probe.item()}")


def set_threads(threads: int) -> None:
    """CPU threads of torch in this process."""
    torch.set_num_threads(max(1, threads))
