"""The GPU benchmark's own code runs on a tiny shape here, so that its first GPU hour is no debugging."""

from __future__ import annotations

import pytest
import torch

from daybreak_server.workloads.video.pipeline import weights
from daybreak_server.workloads.video.spec.options import VideoOptions
from daybreak_server.workloads.video.spec.params import VideoParams
from verification.benchmarks.gpu.__main__ import main
from verification.benchmarks.gpu.measure import (
    Result,
    Row,
    measure,
    our_steps,
    random_conditions,
    stock_steps,
)
from verification.benchmarks.gpu.plan import ROWS
from verification.benchmarks.gpu.shapes import SHAPES, build
from verification.benchmarks.gpu.table import markdown

CPU = torch.device("cpu")


@pytest.mark.parametrize("loop", ["daybreak", "diffusers"])
def test_a_row_is_measured(loop: str) -> None:
    """Each kind of row yields a time for a step; ours also for decode and encode."""
    row = Row(model="tiny", size="32x32", frames=5, steps=3, loop=loop)
    result = measure(row, CPU)
    assert result.error is None
    assert result.step_s
    assert (result.decode_s is not None) == (loop == "daybreak")
    assert f"| {loop} |" in markdown([row], [result])


def test_both_loops_do_the_same_work() -> None:
    """The two loops compared in the table end at the same latents: like is compared with like."""
    model = build("tiny", VideoOptions(), CPU)
    params = VideoParams.model_construct(
        prompt="", negative_prompt="", size="32x32", frames=5, fps=8, steps=4, guidance=4.0, guidance_2=None,
        shift=5.0, seed=0, image=None,
    )  # fmt: skip
    conditions = random_conditions(model)
    assert torch.equal(our_steps(model, params, conditions)[0], stock_steps(model, params, conditions)[0])


def test_a_failed_row_is_a_result() -> None:
    """A kernel that is not there fails its own row and no other."""
    row = Row(model="tiny", size="32x32", frames=5, options={"attention": "no_such_kernel"})
    result = measure(row, CPU)
    assert isinstance(result, Result)
    assert "no_such_kernel" in (result.error or "")
    assert "failed" in markdown([row], [result])


@pytest.mark.parametrize(("name", "low", "high"), [("ti2v-5b", 4.9e9, 5.1e9), ("t2v-a14b", 14.2e9, 14.4e9)])
def test_shapes_are_true(name: str, low: float, high: float) -> None:
    """Parameter counts are those of the published models, without a byte allocated."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    shape = SHAPES[name]
    model = weights.empty(WanTransformer3DModel, dict(shape.transformer))
    assert low < sum(value.numel() for value in model.parameters()) < high
    vae = weights.empty(AutoencoderKLWan, dict(shape.vae))
    assert vae.config.scale_factor_spatial == shape.info.spatial
    assert vae.config.z_dim == shape.transformer["in_channels"]


def test_without_cuda_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no numbers: one line, and the exit status is 0; the table says which rows were not run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Nothing was measured: no CUDA device")
    assert markdown(ROWS, []).count("not run") == 4 * len(ROWS)
