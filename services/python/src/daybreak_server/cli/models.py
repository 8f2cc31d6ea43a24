"""``daybreakd models``: checks model folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak_server.cli.run import write_out

if TYPE_CHECKING:
    from daybreak_server.workloads.weight_files import Finding

models = typer.Typer(no_args_is_help=True, help="Check model folders.", rich_markup_mode=None)
_MARKS = {"error": "✗", "warning": "!", "info": "·"}


@models.command("verify")
def verify_model(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A diffusers folder (with model_index.json), or the folder of a speech translator (with config.json)."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a model folder, without loading the model.

    The check reports missing and incomplete files, classes that Daybreak does not support, and parts of a speech
    translator that do not fit together. It takes a few seconds.
    """
    findings = _verify(folder)
    wrong = any(finding.level == "error" for finding in findings)
    if as_json:
        shown = [{"level": finding.level, "message": finding.message} for finding in findings]
        write_out(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        lines = [f"{_MARKS[finding.level]} {finding.level:<8} {finding.message}" for finding in findings]
        lines.append(f"✗ {folder} cannot be loaded" if wrong else f"✓ {folder} can be loaded")
        write_out("\n".join(lines))
    raise typer.Exit(1 if wrong else 0)


def _verify(folder: Path) -> Sequence[Finding]:
    """The findings of the workload that loads folders of this kind."""
    if (folder / "model_index.json").is_file():
        from daybreak_server.workloads.video.spec.verify import verify as verify_video

        return verify_video(folder)
    if (folder / "config.json").is_file():
        from daybreak_server.workloads.speech.verify import verify as verify_speech

        return verify_speech(folder)
    from daybreak_server.workloads.weight_files import error

    if not folder.is_dir():
        return [error(f"{folder} is not a folder; give the path of a model's folder.")]
    return [
        error(
            f"{folder} has neither a model_index.json (diffusers) nor a config.json (speech translator); give the "
            "folder that has one."
        )
    ]
