"""An example workload: it zooms into the Mandelbrot set and makes a GIF. See docs/07-adding-a-workload.md.

Run it from the root of the repository:

    PYTHONPATH=examples DAYBREAK_POOLS__FRACTAL__WORKLOAD=mandelbrot:SPEC .venv/bin/daybreakd dev

Submit a task from another terminal:

    .venv/bin/daybreak submit fractal frames=12
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field


class Params(BaseModel):
    """The input of a task."""

    model_config = ConfigDict(extra="forbid")
    size: int = Field(96, ge=16, le=1024, description="Width and height in pixels.")
    frames: int = Field(12, ge=1, le=200, description="Number of frames.")
    zoom: float = Field(1.5, gt=1, le=4, description="Magnification from frame to frame.")


SPEC = WorkloadSpec(
    name="mandelbrot",
    Params=Params,
    implementation="mandelbrot:Mandelbrot",
    cost=lambda p: p.size * p.size * p.frames / 1e6,
)


class Mandelbrot:
    """The work of one rank: `load` runs once, `run` for each task."""

    def load(self, group: Group) -> None:
        """Prepare what every task needs: here a palette."""
        self.group = group
        ramp = np.linspace(0, 1, 256)
        self.palette = (np.stack([ramp, ramp**2, np.sqrt(ramp)], axis=-1) * 255).astype(np.uint8)

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm up."""

    def run(self, task: Task[Params], ctx: Context) -> Iterator[Step]:
        """Draw one frame per step. The snapshot is the number of finished frames. The next attempt redraws them."""
        p = task.params
        first = json.loads(ctx.resume)["frames"] if ctx.resume else 0
        if first:
            ctx.resumed_from(first)
        frames = [self._frame(p, k) for k in range(first)]
        for k in range(first, p.frames):
            frames.append(self._frame(p, k))
            state = json.dumps({"frames": k + 1}).encode()
            yield Step(
                phase="draw",
                step=k + 1,
                steps=p.frames,
                fraction=(k + 1) / p.frames,
                snapshot=lambda s=state: s,
            )
        if self.group.leader:
            path = ctx.workdir / "zoom.gif"
            images = [Image.fromarray(self.palette[f]) for f in frames]
            images[0].save(path, save_all=True, append_images=images[1:], duration=80, loop=0)
            ctx.artifact(path, content_type="image/gif")

    def _frame(self, p: Params, k: int) -> np.ndarray:
        half = 1.5 / p.zoom**k
        x = np.linspace(-0.7436 - half, -0.7436 + half, p.size)
        y = np.linspace(0.1318 - half, 0.1318 + half, p.size)
        c = x[None, :] + 1j * y[:, None]
        z, count = np.zeros_like(c), np.zeros(c.shape, np.uint8)
        for _ in range(100):
            inside = np.abs(z) < 2
            z[inside] = z[inside] ** 2 + c[inside]
            count[inside] += 2
        return count
