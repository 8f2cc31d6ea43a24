"""A rank does not import scipy, unless its scheduler needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from daybreak_server.workloads.video.pipeline.scipy_import import avoid_scipy

LOAD = """
import sys
from video_support import params, run, workload
from pathlib import Path
loaded = workload({"warm_up": True, "preview_every": 1})
run(loaded, params(loaded.options.folder, steps=1), Path(sys.argv[1]))
print("scipy.stats" in sys.modules)
"""


@pytest.mark.parametrize(("config", "available"), [({}, False), ({"use_beta_sigmas": True}, True)])
def test_only_beta_sigmas_need_scipy(
    config: dict[str, bool], available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.utils import import_utils

    monkeypatch.setattr(import_utils, "_scipy_available", True)
    avoid_scipy(config)
    assert import_utils.is_scipy_available() is available


def test_another_version_of_diffusers_may_lack_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.utils import import_utils

    monkeypatch.delattr(import_utils, "_scipy_available")
    avoid_scipy({})
    assert not hasattr(import_utils, "_scipy_available")


@pytest.mark.heavy
def test_a_rank_makes_a_video_without_scipy(tmp_path: Path) -> None:
    folder = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{folder.parents[1]}", "PATH": ""},
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.stdout.split()[-1:] == ["False"], result.stderr[-3000:]
