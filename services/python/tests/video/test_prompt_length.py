"""A prompt longer than the text encoder reads is never cut without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import video_support as support

from daybreak_server.workloads.base import PermanentError

# The pipelines of these tests read 24 tokens: 23 bytes, and the end of the text.
FITS = "a red circle moves left"
LONGER = "a red circle moves left and then down"


def warnings_of(made: Any, folder: Path, workdir: Path, **given: Any) -> list[str]:
    _, recorder = support.run(made, support.params(folder, **{"steps": 1, **given}), workdir)
    return [line for line in recorder.lines if line.startswith("warning:")]


def test_a_truncated_prompt_is_a_warning_with_both_numbers(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """A prompt that just fits gives no warning; one token more gives one."""
    for prompt, count in [(FITS, None), (FITS + "s", 25), (LONGER, 38)]:
        found = warnings_of(single, folders["single"], tmp_path / str(count), prompt=prompt)
        if count is None:
            assert found == []
        else:
            (line,) = found
            assert f"prompt has {count} tokens, but the model's text encoder reads 24" in line


def test_tokens_are_counted_and_not_characters(folders: dict[str, Path], single: Any, tmp_path: Path) -> None:
    """12 characters of two bytes are 25 tokens here, and an escaped character counts as the character."""
    (line,) = warnings_of(single, folders["single"], tmp_path / "umlauts", prompt="ä" * 12)
    assert "25 tokens" in line
    assert warnings_of(single, folders["single"], tmp_path / "escape", prompt="a" * 20 + "&amp;") == []


def test_the_negative_prompt_is_counted_where_it_is_used(
    folders: dict[str, Path], single: Any, tmp_path: Path
) -> None:
    """Without guidance it is not used, so its length does not matter."""
    given = {"prompt": "a", "negative_prompt": LONGER}
    (line,) = warnings_of(single, folders["single"], tmp_path / "guided", **given, guidance=3.0)
    assert "negative_prompt has 38 tokens" in line
    assert warnings_of(single, folders["single"], tmp_path / "plain", **given, guidance=1.0) == []


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_pool_may_refuse_a_prompt_that_is_too_long(
    folders: dict[str, Path], tmp_path: Path, field: str
) -> None:
    """The task fails permanently, with both numbers, before it runs a step."""
    made = support.workload({"model": folders["single"], "prompt_too_long": "refuse"})
    assert warnings_of(made, folders["single"], tmp_path / "fits", prompt=FITS) == []
    with pytest.raises(
        PermanentError, match=rf"^{field} has 38 tokens, .* reads 24\. Shorten it\."
    ) as caught:
        warnings_of(made, folders["single"], tmp_path / "longer", **{"prompt": FITS, field: LONGER})
    assert caught.value.code == "invalid_input"
