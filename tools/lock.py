"""Makes a resolved lock fit CPU and CUDA builds alike: torch's public version, no NVIDIA packages.

`uv pip compile --universal` sees one torch wheel here and another there, and each drags its own CUDA packages
along. torch brings what its build needs; the lock pins only its public version, which every build satisfies.

    python tools/lock.py LOCK           rewrite it
    python tools/lock.py --check LOCK   fail where it names a registry, a path of a machine or a CUDA package,
                                        or where a CUDA package is installed
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

OF_TORCH = re.compile(r"^(nvidia-|cuda-|triton)")
NOT_PORTABLE = re.compile(r"(https?:|file:|find-links|index-url| @ |^/|\+cpu|\+cu\d)")


def rewrite(path: Path) -> None:
    kept: list[str] = []
    for line in path.read_text().splitlines():
        if OF_TORCH.match(line):
            continue
        fixed = re.sub(r"^(torch==[0-9.]+).*", r"\1", line)
        if fixed not in kept:
            kept.append(fixed)
    path.write_text("\n".join(kept) + "\n")


def complaints(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    found = [f"{path}: not portable: {line}" for line in lines if NOT_PORTABLE.search(line)]
    found += [f"{path}: belongs to one build of torch: {line}" for line in lines if OF_TORCH.match(line)]
    if not any(re.fullmatch(r"torch==\d+\.\d+\.\d+", line) for line in lines):
        found.append(f"{path}: torch's public version is not pinned")
    installed = {str(d.metadata["Name"]) for d in distributions()}
    if "+cpu" in next((d.version for d in distributions(name="torch")), ""):
        found += [
            f"{name} is installed beside a CPU build of torch" for name in installed if OF_TORCH.match(name)
        ]
    return found


def main() -> int:
    *options, path = sys.argv[1:]
    if "--check" not in options:
        rewrite(Path(path))
        return 0
    found = complaints(Path(path))
    print("\n".join(found) or f"{path}: portable")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
