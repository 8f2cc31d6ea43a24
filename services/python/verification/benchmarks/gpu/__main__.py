"""``python -m verification.benchmarks.gpu [--quick] [--out FILE]``: measure, print a Markdown table, write JSON.

If a package or CUDA is missing, the command measures nothing, and prints one line that says what is missing. If only
CUDA is missing, the exit status is 0, because `make gpu` must not fail on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from verification.benchmarks.gpu import preflight

QUICK = 4
"""The number of rows that the command measures with `--quick`."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark. :returns: the exit status: 1 if a package is missing, otherwise 0, even without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} rows only")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark.json"), help="where the JSON goes")
    args = parser.parse_args(arguments)
    missing = preflight.missing()
    if missing:
        print(f"Nothing was measured: not installed here: {', '.join(missing)}.", file=sys.stderr)
        return 1
    if not preflight.has_cuda():
        print(f"Nothing was measured: {preflight.device()}.")
        return 0
    _measure_all(args.out, quick=args.quick)
    return 0


def _measure_all(out: Path, *, quick: bool) -> None:
    # Imported late, so that the checks in `main` run without torch.
    import torch

    from verification.benchmarks.gpu.group import measure_group
    from verification.benchmarks.gpu.measure import Result, measure
    from verification.benchmarks.gpu.plan import ROWS, SHORT
    from verification.benchmarks.gpu.table import markdown

    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    report: dict[str, Any] = {"machine": machine(), "rows": [], "group": None}
    results: list[Result] = []
    rows = ROWS[:QUICK] if quick else ROWS
    for row in rows:
        results.append(measure(row, device))
        print(f"{len(results)}/{len(rows)} {results[-1]}", file=sys.stderr, flush=True)
        report["rows"] = [result.as_json() for result in results]
        # Written after each row, so that an interrupted run keeps its rows.
        out.write_text(json.dumps(report, indent=1))
    try:
        report["group"] = measure_group(
            SHORT["model"], SHORT["size"], SHORT["frames"], torch.cuda.device_count()
        )
    except (RuntimeError, OSError) as exc:
        report["group"] = {"error": str(exc)[:300]}
    out.write_text(json.dumps(report, indent=1))
    print(f"{report['machine']['gpu']}, torch {report['machine']['torch']}\n")
    print(markdown(ROWS, results))
    print(f"NCCL group of {torch.cuda.device_count()}: {report['group']}")


def machine() -> dict[str, Any]:
    """The machine and the versions of the run."""
    import diffusers
    import torch

    return {
        "gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "diffusers": diffusers.__version__,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
