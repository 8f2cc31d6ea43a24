"""Carries out a plan: builds the device mesh, splits the transformers, and gathers the two passes of guidance."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from daybreak_server.workloads.video.pipeline.parallel_plan import Exchange, ParallelPlan

COLLECTIVES = frozenset({"c10d", "_c10d_functional", "c10d_functional"})
"""The namespaces of torch's operators for collectives."""


class Ranks:
    """This rank's place in the plan."""

    def __init__(self, plan: ParallelPlan, device: torch.device) -> None:
        """Build the mesh over the default process group. This is a collective: every rank must call it."""
        self.plan, self.device = plan, device
        self.leader = True
        self._cfg: dist.ProcessGroup | None = None
        self._split: list[_Split] = []
        if plan.world == 1:
            return
        self.leader = dist.get_rank() == 0
        # Ulysses is innermost, because it communicates most, and NVLink connects neighbouring ranks.
        self.mesh = init_device_mesh(
            device.type, (plan.cfg, plan.ring, plan.ulysses), mesh_dim_names=("cfg", "ring", "ulysses")
        )
        if plan.cfg > 1:
            self._cfg = self.mesh["cfg"].get_group()
        # diffusers 0.42 gathers through an operator that is deprecated in torch 2.13.
        warnings.filterwarnings("ignore", message=".*all_gather_tensor.*", category=FutureWarning)

    def split(self, model: Any, *, per_token_timesteps: bool) -> None:
        """Make a transformer split the tokens of a video among the ranks along ``ulysses`` and ``ring`` in the mesh.

        This replaces ``model.enable_parallelism``, which guesses the device. That method computes
        ``rank % torch.accelerator.device_count()``, which divides by zero on a CPU (diffusers 0.42.1,
        models/modeling_utils.py:1719). It also uses the machine's accelerator for a CPU group.
        """
        if self.plan.sequence == 1:
            return
        from diffusers import ContextParallelConfig, ParallelConfig

        config = ContextParallelConfig(
            ulysses_degree=self.plan.ulysses, ring_degree=self.plan.ring, mesh=cast(Any, self.mesh)
        )
        parallel = ParallelConfig(context_parallel_config=config)
        parallel.setup(dist.get_rank(), dist.get_world_size(), self.device, mesh=self.mesh)
        # The entry "" splits the timesteps, which is right only for models with a timestep for each token.
        cp_plan = {name: part for name, part in model._cp_plan.items() if name or per_token_timesteps}
        self._split.append(_Split(model, parallel, cp_plan))
        self._split[-1].set(True)

    def prepare(self, tokens: int) -> Exchange:
        """Choose how the ranks split a video of this many tokens, and configure the transformers for this choice."""
        exchange = self.plan.exchange(tokens, self.device.type)
        for split in self._split:
            split.set(exchange != "whole")
            # Hooks and attention read these two fields at each call. Setting them here skips the checks of the
            # config's constructor. `ParallelPlan.exchange` has made these checks.
            split.config.ulysses_anything = exchange == "uneven" and self.plan.ulysses > 1
            split.config.ring_anything = exchange == "uneven" and self.plan.ring > 1
        return exchange

    @property
    def guided(self) -> bool | None:
        """Whether this rank computes the guided pass. Without CFG parallelism, each rank computes both: ``None``."""
        return None if self._cfg is None else dist.get_rank(self._cfg) == 0

    def both_passes(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather the guided and the unguided prediction. Each half of the ranks has computed one of them."""
        prediction = prediction.contiguous()
        predictions = [torch.empty_like(prediction) for _ in range(2)]
        dist.all_gather(predictions, prediction, group=self._cfg)
        return predictions[0], predictions[1]

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """Broadcast the leader's tensor. The other ranks pass a tensor of its shape and dtype, which is overwritten."""
        if self.plan.world > 1:
            tensor = tensor.contiguous()
            dist.broadcast(tensor, src=0)
        return tensor


class _Split:
    """Context parallelism of one transformer, which can be switched on and off."""

    def __init__(self, model: Any, parallel: Any, cp_plan: dict[str, Any]) -> None:
        self._model, self._parallel, self._cp_plan, self._on = model, parallel, cp_plan, False
        self.config: Any = parallel.context_parallel_config

    def set(self, on: bool) -> None:
        """Share the sequence among the ranks (on), or let every rank compute all of it (off)."""
        if on == self._on:
            return
        from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel

        self._on = on
        self._model._parallel_config = self._parallel if on else None
        for module in self._model.modules():
            processor: Any = getattr(module, "processor", None)
            if hasattr(processor, "_parallel_config"):
                processor._parallel_config = self._parallel if on else None
        if on:
            apply_context_parallel(self._model, self.config, self._cp_plan)
        else:
            remove_context_parallel(self._model, self._cp_plan)


class CollectiveCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context manager that counts the collectives of this thread, to prove that ranks share the work.

    It hooks into torch's dispatcher. So it also counts the collectives of libraries without patching them, and costs
    nothing outside the context.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of collectives so far."""
        return sum(self.calls.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in COLLECTIVES and "wait_tensor" not in func.name():
            self.calls[func.name()] += 1
        return func(*args, **(kwargs or {}))
