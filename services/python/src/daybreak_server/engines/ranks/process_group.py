"""The process group for the workload's data: ``torch.distributed`` (NCCL on GPUs, gloo on CPUs).

The leader's ``TCPStore`` listens on a free port, which the rendezvous sends to the followers. A group of one rank has
no process group. Its rank uses only :func:`set_threads` of this module, and only if torch is already imported.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_tcp_store: Any = vars(dist)["TCPStore"]  # torch does not export its type


def open_store(host: str, *, size: int, timeout_s: float) -> Any:
    """Open the leader's ``TCPStore``, on a free port (``store.port``)."""
    return _tcp_store(
        host, 0, size, is_master=True, timeout=timedelta(seconds=timeout_s), wait_for_workers=False
    )


def join_store(host: str, port: int, *, size: int, timeout_s: float) -> Any:
    """Connect a follower to the leader's ``TCPStore``."""
    return _tcp_store(
        host, port, size, is_master=False, timeout=timedelta(seconds=timeout_s), wait_for_workers=False
    )


def join(store: Any, *, rank: int, size: int, device: str, timeout_s: float) -> None:
    """Make the default process group, and check with an all-reduce that the ranks can connect.

    :raises RuntimeError: if a rank does not join in time, or the all-reduce gives a wrong sum.
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
        raise RuntimeError(
            f"the process group has {probe.item():g} ranks, not {size}: an all-reduce of ones gave that sum"
        )


def set_threads(threads: int) -> None:
    """Set the number of torch's CPU threads in this process."""
    torch.set_num_threads(max(1, threads))
