"""Makes a resolved lock fit CPU and CUDA builds alike: torch's public version, no NVIDIA packages.

`uv pip compile --universal` sees one torch wheel here and another there, and each drags its own CUDA packages
along. torch brings what its build needs; the lock pins only its public version, which every build satisfies.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OF_TORCH = re.compile(r"^(nvidia-|cuda-|triton)")


def main() -> None:
    path = Path(sys.argv[1])
    kept: list[str] = []
    for line in path.read_text().splitlines():
        if OF_TORCH.match(line):
            continue
        fixed = re.sub(r"^(torch==[0-9.]+).*", r"\1", line)
        if fixed not in kept:
            kept.append(fixed)
    path.write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
