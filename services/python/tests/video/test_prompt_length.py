"""Tests that a prompt with more tokens than the text encoder reads is reported or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import video_support as support

from daybreak_server.workloads.base import PermanentError

# The text encoders of these tests read at most 24 tokens. Each byte is one token, and the end of the text is one too.
FITS = "a red circle moves left"
LONGER = "a red circle moves left and then down"


def warnings_of(workload: Any, folder: Path, workdir: Path, **fields: Any) -> list[str]:
    """Run a task of one step, and return the warnings that it logs."""
    _, recorder = support.run(workload, support.params(folder, **{"steps": 1, **fields}), workdir)
    return [line for line in recorder.lines if line.startswith("warning:")]


def test_a_prompt_that_is_too_long_logs_a_warning_with_both_numbers(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """A prompt of 24 tokens gives no warning, and a prompt of 25 tokens gives a warning."""
    for prompt, count in [(FITS, None), (FITS + "s", 25), (LONGER, 38)]:
        warnings = warnings_of(single, folders["single"], tmp_path / str(count), prompt=prompt)
        if count is None:
            assert warnings == []
        else:
            (line,) = warnings
            assert f"prompt has {count} tokens, but the model's text encoder reads 24" in line


def test_the_length_of_a_prompt_is_counted_in_tokens(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """Twelve characters of two bytes each are 25 tokens. An HTML escape counts as the character it stands for."""
    (line,) = warnings_of(single, folders["single"], tmp_path / "umlauts", prompt="ä" * 12)
    assert "25 tokens" in line
    assert warnings_of(single, folders["single"], tmp_path / "escape", prompt="a" * 20 + "&amp;") == []


def test_the_negative_prompt_is_counted_only_if_guidance_uses_it(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """Without guidance the negative prompt is not used, so its length does not matter."""
    fields = {"prompt": "a", "negative_prompt": LONGER}
    (line,) = warnings_of(single, folders["single"], tmp_path / "guided", **fields, guidance=3.0)
    assert "negative_prompt has 38 tokens" in line
    assert warnings_of(single, folders["single"], tmp_path / "plain", **fields, guidance=1.0) == []


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_pool_can_refuse_a_prompt_that_is_too_long(
    folders: dict[str, Path], tmp_path: Path, field: str
) -> None:
    """The task fails permanently before its first step. The error has the number of tokens and the maximum."""
    workload = support.workload({"model": folders["single"], "prompt_too_long": "refuse"})
    assert warnings_of(workload, folders["single"], tmp_path / "fits", prompt=FITS) == []
    with pytest.raises(
        PermanentError, match=rf"^{field} has 38 tokens, .* reads 24\. Shorten it\."
    ) as caught:
        warnings_of(workload, folders["single"], tmp_path / "longer", **{"prompt": FITS, field: LONGER})
    assert caught.value.code == "invalid_input"
