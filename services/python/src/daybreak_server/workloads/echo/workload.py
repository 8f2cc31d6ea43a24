"""The echo workload: small, deterministic, resumable, and able to fail in every way that a test needs.

Its output is a SHA-256 hash chain with one link per step. So an interrupted and resumed run gives the same bytes as an
uninterrupted run, and a skipped or repeated step changes the output.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from daybreak_server.workloads.base import Context, Group, PermanentError, RetryableError, Step, Task
from daybreak_server.workloads.echo.spec import EchoParams, StepKind

_CHUNK = 1 << 20
# One grey pixel as WebP, so that previews need no image library.
_PIXEL = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")


class Echo:
    """Implements :class:`daybreak_server.workloads.base.Workload`."""

    def __init__(self) -> None:
        self._group = Group()
        self.collectives = 0
        """Number of collectives in which this rank has taken part."""

    def load(self, group: Group) -> None:
        """Load nothing."""
        self._group = group

    def warm_up(self) -> None:
        """Do nothing."""

    def run(self, task: Task[EchoParams], ctx: Context) -> Iterator[Step]:
        """Extend the chain by one digest in each step."""
        params = task.params
        first, digest = _restore(params, ctx)
        for number in range(first + 1, params.steps + 1):
            self._maybe_fail(task, number)
            if params.step_s:
                _spend(params.step_s, params.step_kind)
            if params.all_ranks and self._group.size > 1:
                self._barrier(number)
            digest = hashlib.sha256(f"{digest}/{number}".encode()).hexdigest()
            if params.preview:
                ctx.preview(_PIXEL, step=number)
            yield Step(
                phase="echo",
                fraction=number / params.steps,
                step=number,
                steps=params.steps,
                snapshot=_snapshot(params, number, digest),
            )
        self._write_artifacts(params, digest, ctx)

    def _write_artifacts(self, params: EchoParams, digest: str, ctx: Context) -> None:
        if not self._group.leader:
            return
        path = ctx.workdir / "echo.txt"
        path.write_text(f"{params.message}\n{params.steps} steps {digest}\n", encoding="utf-8")
        ctx.artifact(path, content_type="text/plain; charset=utf-8")
        if params.artifact_bytes:
            big = ctx.workdir / "echo.bin"
            with big.open("wb") as file:
                for start in range(0, params.artifact_bytes, _CHUNK):
                    file.write(bytes(min(_CHUNK, params.artifact_bytes - start)))
            ctx.artifact(big, content_type="application/octet-stream")
        ctx.log(f"said {params.message[:60]!r} in {params.steps} steps")

    def _barrier(self, number: int) -> None:
        import torch
        import torch.distributed as dist

        total = torch.full((1,), float(self._group.rank + number))
        dist.all_reduce(total)
        size = self._group.size
        if int(total.item()) != size * number + size * (size - 1) // 2:
            raise RetryableError(f"a collective of {size} ranks gave {total.item()}", code="wrong_sum")
        self.collectives += 1

    def _maybe_fail(self, task: Task[EchoParams], number: int) -> None:
        params = task.params
        if params.fail_at != number or params.fail_rank not in (None, self._group.rank):
            return
        if params.fail_attempts and task.attempt > params.fail_attempts:
            return
        match params.fail_kind:
            case "error":
                raise RetryableError(f"step {number} failed, as requested", code="echo_failed")
            case "permanent":
                raise PermanentError(f"step {number} failed permanently, as requested", code="echo_refused")
            case "exit":
                os._exit(17)
            case "hang":
                while True:
                    time.sleep(3600)


def _spend(seconds: float, kind: StepKind) -> None:
    """Spend the time of a step. The kinds differ in how much time other threads of the process get."""
    match kind:
        case "sleep":
            time.sleep(seconds)
        case "compute":
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                sum(range(1000))
        case "hold_gil":  # like an extension that computes without releasing the GIL
            ctypes.PyDLL(None).usleep(ctypes.c_uint(round(seconds * 1e6)))


def _fingerprint(params: EchoParams) -> str:
    return hashlib.sha256(f"{params.message}/{params.steps}".encode()).hexdigest()


def _snapshot(params: EchoParams, number: int, digest: str) -> Any:
    def take() -> bytes:
        return json.dumps({"for": _fingerprint(params), "step": number, "digest": digest}).encode()

    return take


def _restore(params: EchoParams, ctx: Context) -> tuple[int, str]:
    """The last finished step and its digest, or the initial state if there is no matching snapshot."""
    start = (0, hashlib.sha256(params.message.encode()).hexdigest())
    if ctx.resume is None:
        return start
    try:
        saved = json.loads(ctx.resume)
        step, digest = int(saved["step"]), str(saved["digest"])
    except (ValueError, KeyError, TypeError):
        return start
    if saved.get("for") != _fingerprint(params):
        return start
    ctx.resumed_from(step)
    return step, digest
