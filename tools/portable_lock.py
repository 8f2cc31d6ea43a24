"""Makes a lock file fit CPU and CUDA builds of torch: the file then pins torch's public version, and no CUDA package.

`uv pip compile --universal` sees different torch wheels on different machines, and each wheel depends on its own CUDA
packages. pip installs what the wheel needs, so the lock pins only torch's public version, which every build satisfies.

    python tools/portable_lock.py LOCK           rewrite the lock file
    python tools/portable_lock.py --check LOCK   fail if it names a registry, a local path or a CUDA package, if it does
                                                 not pin torch's public version, or if a CUDA package is installed
                                                 beside a CPU build of torch

CUDA packages are those whose names begin with `nvidia-`, `cuda-` or `triton`.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

OF_TORCH = re.compile(r"^(nvidia-|cuda-|triton)")
NOT_PORTABLE = re.compile(r"(https?:|file:|find-links|index-url| @ |^/|\+cpu|\+cu\d)")


def rewrite(path: Path) -> None:
    """Rewrite the lock file in place."""
    portable: list[str] = []
    for line in path.read_text().splitlines():
        if OF_TORCH.match(line):
            continue
        fixed = re.sub(r"^(torch==[0-9.]+).*", r"\1", line)
        if fixed not in portable:
            portable.append(fixed)
    path.write_text("\n".join(portable) + "\n")


def problems(path: Path) -> list[str]:
    """What ``--check`` finds wrong with the lock file and the installed packages, one sentence each."""
    lines = path.read_text().splitlines()
    messages = [f"{path}: not portable: {line}" for line in lines if NOT_PORTABLE.search(line)]
    messages += [f"{path}: belongs to one build of torch: {line}" for line in lines if OF_TORCH.match(line)]
    if not any(re.fullmatch(r"torch==\d+\.\d+\.\d+", line) for line in lines):
        messages.append(f"{path}: torch's public version is not pinned")
    installed = {str(d.metadata["Name"]) for d in distributions()}
    if "+cpu" in next((d.version for d in distributions(name="torch")), ""):
        messages += [
            f"{name} is installed beside a CPU build of torch" for name in installed if OF_TORCH.match(name)
        ]
    return messages


def main() -> int:
    """Rewrite or check the lock file. :returns: the exit code: 1 if the check found a problem."""
    *options, path = sys.argv[1:]
    if "--check" not in options:
        rewrite(Path(path))
        return 0
    messages = problems(Path(path))
    print("\n".join(messages) or f"{path}: portable")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
