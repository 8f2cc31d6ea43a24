"""Runs the workload ``examples/mandelbrot.py`` with the settings that docs/07-adding-a-workload.md shows."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from testkit.system import System, request

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_the_example_workload_runs_from_its_settings_alone(systems: Callable[..., System]) -> None:
    """A pool with the workload ``mandelbrot:SPEC`` validates its input and makes a GIF with all requested frames."""
    system = systems("dev", PYTHONPATH=str(EXAMPLES), DAYBREAK_POOLS__FRACTAL__WORKLOAD="mandelbrot:SPEC")
    system.ready(60)
    schema = request(f"{system.url}/v1/pools/fractal")["input_schema"]
    assert schema["properties"]["zoom"]["description"] == "Magnification from frame to frame."
    body = {"pool": "fractal", "input": {"frames": 6, "size": 48}}
    task = system.wait(request(f"{system.url}/v1/tasks", body)["id"])
    (artifact,) = task["artifacts"]
    with urllib.request.urlopen(system.url + artifact["url"]) as response:
        picture = Image.open(io.BytesIO(response.read()))
    assert (picture.size, picture.n_frames) == ((48, 48), 6)
