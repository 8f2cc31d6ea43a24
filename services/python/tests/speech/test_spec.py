"""The spec of the workload ``speech``, and the folders of its models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from daybreak_server.workloads.base import Group, ModelMissingError
from daybreak_server.workloads.speech.model import Speech
from daybreak_server.workloads.speech.spec import SPEC, options_of
from daybreak_server.workloads.speech.window import first_visible
from testkit.speech_models import loaded, random_folder


def test_the_spec_needs_no_torch() -> None:
    code = "import sys, daybreak_server.workloads.speech.spec; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_wrong_options_are_named() -> None:
    assert (SPEC.name, SPEC.kind) == ("speech", "sessions")
    with pytest.raises(ValidationError, match="cache_mb"):
        options_of({"cache_mb": 0})
    with pytest.raises(ValidationError, match="cache_gb"):
        options_of({"cache_gb": 1})


def test_the_window_keeps_whole_turns_and_depends_on_the_newest_alone() -> None:
    assert first_visible([], 10) == 0
    assert first_visible([5, 5], 10) == 0
    assert first_visible([1, 5, 5], 10) == 1
    assert first_visible([1, 5, 11], 10) == 3
    assert len([7, 7, 1, 5, 5]) - first_visible([7, 7, 1, 5, 5], 10) == len([1, 5, 5]) - first_visible(
        [1, 5, 5], 10
    )


def test_a_folder_without_a_model_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"config\.json"):
        loaded(tmp_path)
    folder = random_folder(tmp_path)
    language_model = folder / "language_model" / "config.json"
    content = json.loads(language_model.read_text())
    for change, message in (
        ({"model_type": "gpt2"}, "is a gpt2"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "scaled rotary positions"),
        ({"hidden_size": 64}, "cannot be loaded"),
    ):
        language_model.write_text(json.dumps(content | change))
        with pytest.raises(ModelMissingError, match=message):
            loaded(folder)


def test_memory_for_less_than_one_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="raise cache_mb"):
        loaded(random_folder(tmp_path), cache_mb=0.001)


def test_a_group_of_several_ranks_is_refused() -> None:
    with pytest.raises(ModelMissingError, match="ranks: 1"):
        Speech().load(Group(size=2))
