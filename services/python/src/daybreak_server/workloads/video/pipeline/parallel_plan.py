"""How the ranks of a group share one video: CFG × Ulysses × ring, decided from numbers alone.

CFG first: the guided and the unguided pass need nothing of each other but one gather a step, so two ranks
come close to twice the speed (TensorRT-LLM measured 1.89×). Then Ulysses (Jacobs et al. 2023): each rank
holds a part of the tokens and, for attention, a part of the heads, exchanged by all-to-all; its result equals
the serial one bit for bit. Ring attention (Liu et al. 2023) takes what heads cannot divide; it needs a GPU
kernel that returns the log-sum-exp, and its sums are ordered differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.video.spec.options import PlanOptions

Exchange = Literal["even", "uneven", "whole"]


class PlanError(PermanentError):
    """No plan fits; the message names group sizes that do."""

    code = "no_parallel_plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Degrees of each kind of parallelism; their product is the number of ranks."""

    cfg: int = 1
    ulysses: int = 1
    ring: int = 1

    @property
    def world(self) -> int:
        """How many ranks it takes."""
        return self.cfg * self.ulysses * self.ring

    @property
    def sequence(self) -> int:
        """Into how many parts a video's tokens are split."""
        return self.ulysses * self.ring

    def explain(self, heads: int) -> str:
        """The plan in words, for the log at start."""
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
        """How ranks share a video of this many tokens.

        ``even`` when they divide. Else ``uneven`` (parts of different lengths), which needs NCCL: gloo
        gathers equal sizes only, and diffusers has no such exchange for Ulysses and ring together. Where that
        cannot be, ``whole``: every rank of a sequence computes all of it; slower, never wrong.
        """
        if tokens % self.sequence == 0:
            return "even"
        one_kind = self.ulysses == 1 or self.ring == 1
        if device.startswith("cuda") and one_kind and tokens > self.sequence:
            return "uneven"
        return "whole"


def plan(world: int, heads: int, guidance: bool, device: str) -> Plan:
    """The plan for ``world`` ranks and a model of ``heads`` heads.

    ``guidance`` says whether this pool's tasks usually run two passes. :raises PlanError: when none fits.
    """
    found = _plan(world, heads, guidance, device)
    if found is None:
        sizes = [n for n in range(1, 2 * world + 1) if _plan(n, heads, guidance, device)]
        raise PlanError(
            f"{world} ranks cannot share a model of {heads} heads on {device}; groups of {sizes} can. "
            "Set the pool's ranks to one of those."
        )
    return found


def _plan(world: int, heads: int, guidance: bool, device: str) -> Plan | None:
    for cfg in (2, 1) if guidance and world % 2 == 0 else (1,):
        rest = world // cfg
        for ulysses in range(rest, 0, -1):
            whole = rest % ulysses == 0 and heads % ulysses == 0
            if whole and (ulysses == rest or device.startswith("cuda")):
                return Plan(cfg=cfg, ulysses=ulysses, ring=rest // ulysses)
    return None


def chosen(wanted: PlanOptions | None, *, world: int, heads: int, guidance: bool, device: str) -> Plan:
    """The operator's plan where there is one, checked; else :func:`plan`'s."""
    if wanted is None:
        return plan(world, heads, guidance, device)
    result = Plan(cfg=wanted.cfg, ulysses=wanted.ulysses, ring=wanted.ring)
    if result.world != world:
        raise PlanError(
            f"the plan {wanted.model_dump()} takes {result.world} ranks, but the group has {world}."
        )
    if heads % result.ulysses:
        raise PlanError(f"Ulysses {result.ulysses} does not divide the model's {heads} heads.")
    if result.ring > 1 and not device.startswith("cuda"):
        raise PlanError("ring attention needs a GPU: torch's CPU kernel returns no log-sum-exp.")
    return result
