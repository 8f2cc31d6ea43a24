"""Tests of the GPU benchmark's own code on a tiny CPU shape, so that its first hour on a GPU is not spent on bugs."""

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
def test_a_row_of_each_loop_is_measured(loop: str) -> None:
    """Both loops report a time per step. Only Daybreak's loop also reports the time of the decode."""
    row = Row(model="tiny", size="32x32", frames=5, steps=3, loop=loop)
    result = measure(row, CPU)
    assert result.error is None
    assert result.step_s
    assert (result.decode_s is not None) == (loop == "daybreak")
    assert f"| {loop} |" in markdown([row], [result])


def test_both_loops_end_with_the_same_latents() -> None:
    """The two loops that the table compares do the same work: they end with equal latents."""
    model = build("tiny", VideoOptions(), CPU)
    params = VideoParams.model_construct(
        prompt="", negative_prompt="", size="32x32", frames=5, fps=8, steps=4, guidance=4.0, guidance_2=None,
        shift=5.0, seed=0, image=None,
    )  # fmt: skip
    conditions = random_conditions(model)
    assert torch.equal(our_steps(model, params, conditions)[0], stock_steps(model, params, conditions)[0])


def test_a_row_that_fails_is_reported_in_the_table() -> None:
    """A missing attention kernel gives the row an error, and the benchmark continues."""
    row = Row(model="tiny", size="32x32", frames=5, options={"attention": "no_such_kernel"})
    result = measure(row, CPU)
    assert isinstance(result, Result)
    assert "no_such_kernel" in (result.error or "")
    assert "failed" in markdown([row], [result])


@pytest.mark.parametrize(("name", "low", "high"), [("ti2v-5b", 4.9e9, 5.1e9), ("t2v-a14b", 14.2e9, 14.4e9)])
def test_shapes_have_the_parameter_counts_of_the_published_models(name: str, low: float, high: float) -> None:
    """The shapes have as many parameters as the published models. The test allocates no memory for them."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    shape = SHAPES[name]
    model = weights.empty(WanTransformer3DModel, dict(shape.transformer))
    assert low < sum(value.numel() for value in model.parameters()) < high
    vae = weights.empty(AutoencoderKLWan, dict(shape.vae))
    assert vae.config.scale_factor_spatial == shape.info.spatial
    assert vae.config.z_dim == shape.transformer["in_channels"]


def test_without_cuda_the_benchmark_reports_that_it_measured_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, the benchmark prints one line and exits with 0, and the table marks every row as not run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Nothing was measured: no CUDA device")
    assert markdown(ROWS, []).count("not run") == 4 * len(ROWS)
