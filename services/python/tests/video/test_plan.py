"""The parallel plan is a pure function of world size, heads, guidance and device."""

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
def test_plan(world: int, heads: int, guidance: bool, device: str, expected: ParallelPlan) -> None:
    """CFG comes first, then as much Ulysses as the heads allow, then ring on a GPU."""
    assert plan(world, heads, guidance, device) == expected
    assert expected.world == world


def test_a_group_that_cannot_share_the_model_is_refused_with_sizes_that_can() -> None:
    with pytest.raises(PlanError, match=r"6 ranks .* one of \[1, 2, 4, 5, 8, 10\]"):
        plan(6, 40, True, "cpu")


def test_a_plan_in_the_options_is_checked() -> None:
    """It is used, but never if it would hang or crash later."""
    assert choose(PlanOptions(ulysses=4), world=4, heads=8, guidance=True, device="cpu") == ParallelPlan(
        ulysses=4
    )
    for wrong in (PlanOptions(ulysses=2), PlanOptions(ulysses=4, cfg=2), PlanOptions(ring=4)):
        with pytest.raises(PlanError):
            choose(wrong, world=4, heads=8, guidance=True, device="cpu")
    with pytest.raises(PlanError, match="does not divide"):
        choose(PlanOptions(ulysses=4), world=4, heads=6, guidance=True, device="cpu")


def test_exchange() -> None:
    """Tokens that do not divide use NCCL's uneven exchange; elsewhere every rank computes all of them."""
    assert ParallelPlan(ulysses=4).exchange(80, "cpu") == "even"
    assert ParallelPlan(cfg=2).exchange(81, "cpu") == "even"
    assert ParallelPlan(ulysses=4).exchange(81, "cpu") == "whole"
    assert ParallelPlan(ulysses=4).exchange(81, "cuda") == "uneven"
    assert ParallelPlan(ring=2).exchange(81, "cuda") == "uneven"
    assert ParallelPlan(ulysses=2, ring=2).exchange(81, "cuda") == "whole"
    assert ParallelPlan(ulysses=4).exchange(3, "cuda") == "whole"


def test_explain() -> None:
    """The line printed at start says who does what."""
    text = ParallelPlan(cfg=2, ulysses=4).explain(40)
    assert text == "8 ranks: CFG 2 (guided | unguided pass) × Ulysses 4 (10 of 40 heads each)"
    assert ParallelPlan().explain(8) == "1 rank: serial"
