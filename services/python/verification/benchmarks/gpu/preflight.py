"""``python -m verification.benchmarks.gpu.preflight``: prints whether this Python can run the GPU tests and benchmark.

`make gpu` runs this module with each Python that it knows, and then chooses one of them. So the module can be imported
with the standard library alone, by Python 3.9 or newer. Exit status: 0 with a CUDA device, 3 without one, 1 if
a package is missing or Python is too old for Daybreak.
"""

import importlib.util
import sys
from typing import Final

PACKAGES: Final = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "PIL",
    "pydantic",
)
"""The packages that the benchmark imports, by their names in Python."""

READY, MISSING, NO_CUDA = 0, 1, 3
NAMES: Final = {"PIL": "pillow"}
"""The names that pip uses, for packages whose names in Python differ."""


def main() -> int:
    """Print one line about this Python. Returns the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036  # make gpu also tries the system's Python
        print(sys.executable + ": Daybreak needs Python 3.11 or newer")
        return MISSING
    absent = missing(*PACKAGES, "pytest")
    if absent:
        print(f"{sys.executable}: not installed here: {', '.join(absent)}")
        return MISSING
    print(f"{sys.executable}: {device()}")
    return READY if has_cuda() else NO_CUDA


def missing(*names: str) -> list[str]:
    """The packages among ``names`` (by default, those that the benchmark imports) that are not installed."""
    return [NAMES.get(name, name) for name in names or PACKAGES if importlib.util.find_spec(name) is None]


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def device() -> str:
    """The device that torch sees and the version of torch, in words."""
    import torch

    if not torch.cuda.is_available():
        return f"no CUDA device: torch {torch.__version__} sees none"
    return f"{torch.cuda.get_device_name(0)} x {torch.cuda.device_count()}, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
