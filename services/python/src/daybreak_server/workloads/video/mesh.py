"""A plan, carried out: device mesh, split transformers, the CFG gather, and a counter of collectives."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from daybreak_server.workloads.video.parallel import Plan

COLLECTIVES = frozenset({"c10d", "_c10d_functional", "c10d_functional"})
"""Namespaces of torch's operators under which every collective is dispatched."""


class Ranks:
    """This rank's place in the plan."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        """Build the mesh (a collective: every rank must call it) over the default process group."""
        self.plan, self.device = plan, device
        self.leader = True
        self._cfg: dist.ProcessGroup | None = None
        self._configs: list[Any] = []
        if plan.world == 1:
            return
        self.leader = dist.get_rank() == 0
        # Ulysses is innermost: neighbours in rank are neighbours on NVLink, and it talks the most.
        self.mesh = init_device_mesh(
            device.type, (plan.cfg, plan.ring, plan.ulysses), mesh_dim_names=("cfg", "ring", "ulysses")
        )
        if plan.cfg > 1:
            self._cfg = self.mesh["cfg"].get_group()
        # diffusers 0.42 gathers through an operator that torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message=".*all_gather_tensor.*", category=FutureWarning)

    def split(self, model: Any, *, per_token_timesteps: bool) -> None:
        """Make a transformer share its tokens with the other ranks of its sequence.

        This is ``model.enable_parallelism`` without its guess of the device: it computes
        ``rank % torch.accelerator.device_count()``, which divides by zero on CPU (diffusers 0.42.1,
        models/modeling_utils.py:1719), and takes the machine's accelerator even for a CPU group.
        """
        if self.plan.sequence == 1:
            return
        from diffusers import ContextParallelConfig, ParallelConfig
        from diffusers.hooks import apply_context_parallel

        config = ContextParallelConfig(
            ulysses_degree=self.plan.ulysses, ring_degree=self.plan.ring, mesh=cast(Any, self.mesh)
        )
        parallel = ParallelConfig(context_parallel_config=config)
        parallel.setup(dist.get_rank(), dist.get_world_size(), self.device, mesh=self.mesh)
        model._parallel_config = parallel
        for module in model.modules():
            processor: Any = getattr(module, "processor", None)
            if hasattr(processor, "_parallel_config"):
                processor._parallel_config = parallel
        # The plan's "" entry splits the timesteps, which fits only models with one for each token.
        cp_plan = {name: split for name, split in model._cp_plan.items() if name or per_token_timesteps}
        apply_context_parallel(model, config, cp_plan)
        self._configs.append(config)

    def prepare(self, tokens: int) -> None:
        """Choose the exchange for a video of this many tokens. :raises PlanError: when none carries it."""
        uneven = self.plan.uneven(tokens)
        for config in self._configs:
            # Read by the hooks and the attention at each call; the constructor's checks are `uneven`'s.
            config.ulysses_anything = uneven and self.plan.ulysses > 1
            config.ring_anything = uneven and self.plan.ring > 1

    @property
    def guided(self) -> bool | None:
        """Which pass is this rank's under CFG parallelism: guided or not; None: both."""
        return None if self._cfg is None else dist.get_rank(self._cfg) == 0

    def both_passes(self, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The guided and the unguided prediction, each computed by one half of the ranks."""
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(2)]
        dist.all_gather(parts, own, group=self._cfg)
        return parts[0], parts[1]

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """The leader's tensor on every rank; the others give one of the same shape and dtype to fill."""
        if self.plan.world > 1:
            tensor = tensor.contiguous()
            dist.broadcast(tensor, src=0)
        return tensor


class CollectiveCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts this thread's collectives by operator, while entered: the proof that ranks did share the work.

    It watches the dispatcher: library code is counted without being patched, and costs nothing otherwise.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All collectives so far."""
        return sum(self.calls.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in COLLECTIVES and "wait_tensor" not in func.name():
            self.calls[func.name()] += 1
        return func(*args, **(kwargs or {}))
