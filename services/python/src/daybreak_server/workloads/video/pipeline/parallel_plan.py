"""Decides how the ranks of a group share one video: CFG × Ulysses × ring. Pure: numbers in, plan out.

* CFG parallelism comes first, if tasks usually have two passes and the number of ranks is even. The guided and the
  unguided pass need only one gather per step, so two ranks are almost twice as fast (TensorRT-LLM measured 1.89×).
* Ulysses (Jacobs et al. 2023) comes next. Each rank has a part of the tokens. For attention, an all-to-all exchange
  gives each rank all tokens for a part of the heads. On a CPU, the result equals the serial one bit for bit.
* The degree of Ulysses must divide the number of heads. Ring attention (Liu et al. 2023) takes the factor that is left.
  Ring attention needs a GPU kernel that returns the log-sum-exp. It sums in another order, so the last bits of its
  result may differ from the serial result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.spec.options import PlanOptions

Exchange = Literal["even", "uneven", "whole"]


class PlanError(PermanentError):
    """No plan fits the group, or the plan in the pool's options does not fit. The message says what to change."""

    code = "no_parallel_plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """The degree of each kind of parallelism. The product of the three degrees is the number of ranks."""

    cfg: int = 1
    ulysses: int = 1
    ring: int = 1

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.cfg * self.ulysses * self.ring

    @property
    def sequence(self) -> int:
        """Number of parts into which the tokens of a video are split."""
        return self.ulysses * self.ring

    def explain(self, heads: int) -> str:
        """The plan in words, for logs."""
        if self.world == 1:
            return "1 rank: serial"
        parts = []
        if self.cfg > 1:
            parts.append("CFG 2 (guided | unguided pass)")
        if self.ulysses > 1:
            parts.append(f"Ulysses {self.ulysses} ({heads // self.ulysses} of {heads} heads each)")
        if self.ring > 1:
            parts.append(f"ring {self.ring}")
        return f"{self.world} ranks: " + " × ".join(parts)

    def exchange(self, tokens: int, device: str) -> Exchange:
        """How ranks share a video with this many tokens.

        * ``even``: the tokens divide into equal parts.
        * ``uneven``: the parts have different lengths. This needs NCCL, because gloo gathers only equal sizes. It also
          needs a plan without Ulysses or without ring, because diffusers cannot combine these two if the parts have
          different lengths.
        * ``whole``: every rank computes all tokens, which is slower but always works.
        """
        if tokens % self.sequence == 0:
            return "even"
        single_kind = self.ulysses == 1 or self.ring == 1
        if device.startswith("cuda") and single_kind and tokens > self.sequence:
            return "uneven"
        return "whole"


def plan(world: int, heads: int, guidance: bool, device: str) -> ParallelPlan:
    """The plan for ``world`` ranks and a model with ``heads`` heads.

    :param guidance: Whether tasks of this pool usually run two passes.
    :raises PlanError: when no plan fits.
    """
    best = _plan(world, heads, guidance, device)
    if best is None:
        sizes = [n for n in range(1, 2 * world + 1) if _plan(n, heads, guidance, device)]
        raise PlanError(
            f"{world} ranks cannot share a model with {heads} heads on {device}. "
            f"Set the pool's ranks to one of {sizes}."
        )
    return best


def _plan(world: int, heads: int, guidance: bool, device: str) -> ParallelPlan | None:
    for cfg in (2, 1) if guidance and world % 2 == 0 else (1,):
        rest = world // cfg
        for ulysses in range(rest, 0, -1):
            divides = rest % ulysses == 0 and heads % ulysses == 0
            if divides and (ulysses == rest or device.startswith("cuda")):
                return ParallelPlan(cfg=cfg, ulysses=ulysses, ring=rest // ulysses)
    return None


def choose(
    options: PlanOptions | None, *, world: int, heads: int, guidance: bool, device: str
) -> ParallelPlan:
    """The plan in the pool's options, or that of :func:`plan` if they have none.

    :raises PlanError: if the plan in the options does not fit the group, the model or the device, or no plan fits.
    """
    if options is None:
        return plan(world, heads, guidance, device)
    result = ParallelPlan(cfg=options.cfg, ulysses=options.ulysses, ring=options.ring)
    if result.world != world:
        raise PlanError(
            f"the option parallel {options.model_dump()} needs {result.world} ranks, but the group has {world}. "
            "Change one of them."
        )
    if heads % result.ulysses:
        raise PlanError(
            f"ulysses {result.ulysses} does not divide the model's {heads} heads. Choose a number that does."
        )
    if result.ring > 1 and not device.startswith("cuda"):
        raise PlanError(
            "ring attention needs a GPU, because torch's CPU kernel returns no log-sum-exp. Set ring to 1."
        )
    return result
