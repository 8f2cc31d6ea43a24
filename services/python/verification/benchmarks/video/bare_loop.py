"""The baseline: the loop of the video workload under plain ``torchrun``, without Daybreak.

Run by ``torchrun bare_loop.py PORT OPTIONS``; OPTIONS is JSON with the workload's options. Rank 0 connects to
127.0.0.1:PORT, reports that it is ready, reads one JSON object of parameters per line, and replies to each with the
seconds of the loop and the MP4's SHA-256. Loading the model and warming up are not counted. There is no lockstep, no
store, no upload and no checkpoint. There is no preview either, because ``baseline.py`` sets ``preview_every`` to 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from daybreak_server.workloads.base import Group, Task
from daybreak_server.workloads.video.pipeline.workload import VideoWorkload
from daybreak_server.workloads.video.spec.params import VideoParams


class NullContext:
    """A context that discards everything."""

    resume = None

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir

    def resumed_from(self, step: int) -> None: ...

    def log(self, message: str, *, level: str = "info") -> None: ...

    def preview(self, image: bytes, *, step: int, content_type: str = "image/webp") -> None: ...

    def artifact(self, path: Path, *, name: str | None = None, content_type: str) -> None: ...


def main() -> None:
    """Run the workload for each line of parameters, until the caller closes the connection."""
    port, options = sys.argv[1:3]
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    workload = VideoWorkload()
    workload.load(Group(rank=rank, size=size, local_rank=rank, options=json.loads(options)))
    workload.warm_up()
    dist.barrier()
    caller = socket.create_connection(("127.0.0.1", int(port))).makefile("rw") if rank == 0 else None
    answer(caller, {"ready": True, "pid": os.getpid()})
    while True:
        order: list[Any] = [None]
        if caller is not None and (line := caller.readline()):
            order = [json.loads(line)]
        dist.broadcast_object_list(order)
        if order[0] is None:
            break
        with tempfile.TemporaryDirectory() as folder:
            params = VideoParams.model_validate(order[0], context={"limits": workload.limits})
            started = time.perf_counter()
            for _ in workload.run(Task(id="bare", params=params), NullContext(Path(folder))):
                pass
            elapsed_s = time.perf_counter() - started
            if rank == 0:
                digest = hashlib.sha256((Path(folder) / "video.mp4").read_bytes()).hexdigest()
                answer(caller, {"s": elapsed_s, "sha256": digest})
    dist.destroy_process_group()


def answer(caller: Any, reply: dict[str, Any]) -> None:
    """Write one line of JSON to the caller. Only rank 0 has a caller; the other ranks write nothing."""
    if caller is not None:
        caller.write(json.dumps(reply) + "\n")
        caller.flush()


if __name__ == "__main__":
    main()
