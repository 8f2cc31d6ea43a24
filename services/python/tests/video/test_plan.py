"""Tests of the parallel plan, which depends only on the number of ranks, the number of heads, guidance and device."""

from __future__ import annotations

import pytest

from daybreak_server.workloads.video.pipeline.parallel_plan import ParallelPlan, PlanError, choose, plan
from daybreak_server.workloads.video.spec.options import PlanOptions


@pytest.mark.parametrize(
    ("world", "heads", "guidance", "device", "expected"),
    [
        (1, 8, True, "cpu", ParallelPlan()),
        (2, 8, True, "cpu", ParallelPlan(cfg=2)),
        (2, 8, False, "cpu", ParallelPlan(ulysses=2)),
        (4, 8, True, "cpu", ParallelPlan(cfg=2, ulysses=2)),
        (3, 24, True, "cpu", ParallelPlan(ulysses=3)),
        (8, 40, True, "cuda", ParallelPlan(cfg=2, ulysses=4)),
        (8, 24, True, "cuda", ParallelPlan(cfg=2, ulysses=4)),
        (6, 40, True, "cuda", ParallelPlan(cfg=2, ring=3)),
        (16, 40, True, "cuda", ParallelPlan(cfg=2, ulysses=8)),
        (32, 40, True, "cuda", ParallelPlan(cfg=2, ulysses=8, ring=2)),
    ],
)
def test_the_plan_prefers_cfg_then_ulysses_then_ring(
    world: int, heads: int, guidance: bool, device: str, expected: ParallelPlan
) -> None:
    """CFG comes first, if the task has guidance and the number of ranks is even.

    Ulysses comes second, with the largest number that divides both the remaining ranks and the heads. On a GPU, ring
    takes the rest.
    """
    assert plan(world, heads, guidance, device) == expected
    assert expected.world == world


def test_a_group_of_an_impossible_size_is_refused_with_the_possible_sizes() -> None:
    """The error lists the possible numbers of ranks, up to twice the requested number."""
    with pytest.raises(PlanError, match=r"6 ranks .* one of \[1, 2, 4, 5, 8, 10\]"):
        plan(6, 40, True, "cpu")


def test_a_plan_in_the_options_is_used_only_if_it_fits() -> None:
    """A plan that would hang or crash later is refused at start."""
    assert choose(PlanOptions(ulysses=4), world=4, heads=8, guidance=True, device="cpu") == ParallelPlan(
        ulysses=4
    )
    for wrong in (PlanOptions(ulysses=2), PlanOptions(ulysses=4, cfg=2), PlanOptions(ring=4)):
        with pytest.raises(PlanError):
            choose(wrong, world=4, heads=8, guidance=True, device="cpu")
    with pytest.raises(PlanError, match="does not divide"):
        choose(PlanOptions(ulysses=4), world=4, heads=6, guidance=True, device="cpu")


def test_tokens_that_do_not_divide_evenly_are_shared_unevenly_or_not_at_all() -> None:
    """If the tokens do not divide evenly among the ranks, the ranks exchange uneven parts through NCCL.

    In three cases every rank computes all tokens instead: there is no NCCL, the plan has both Ulysses and ring, or
    there are fewer tokens than ranks.
    """
    assert ParallelPlan(ulysses=4).exchange(80, "cpu") == "even"
    assert ParallelPlan(cfg=2).exchange(81, "cpu") == "even"
    assert ParallelPlan(ulysses=4).exchange(81, "cpu") == "whole"
    assert ParallelPlan(ulysses=4).exchange(81, "cuda") == "uneven"
    assert ParallelPlan(ring=2).exchange(81, "cuda") == "uneven"
    assert ParallelPlan(ulysses=2, ring=2).exchange(81, "cuda") == "whole"
    assert ParallelPlan(ulysses=4).exchange(3, "cuda") == "whole"


def test_the_explanation_of_a_plan_names_each_kind_of_parallelism() -> None:
    """The log line at start says how the ranks share the work."""
    text = ParallelPlan(cfg=2, ulysses=4).explain(40)
    assert text == "8 ranks: CFG 2 (guided | unguided pass) × Ulysses 4 (10 of 40 heads each)"
    assert ParallelPlan().explain(8) == "1 rank: serial"
