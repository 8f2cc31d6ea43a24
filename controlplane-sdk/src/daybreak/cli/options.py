"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daybreak.wire import IDEMPOTENCY_KEY, Priority

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write only JSON to stdout; one line per item for lists and streams.")
]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id: video_01JD…", show_default=False)]
PriorityOption = Annotated[
    Priority, typer.Option(help="Among your tenant's tasks, those with a higher priority run first.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="A file, a folder (an existing one, or a name that ends in /), or - for stdout.",
        show_default="out/ID with the file's extension",
    ),
]
PreviewsOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Save preview images of the running task in this folder.")
]
DetachOption = Annotated[bool, typer.Option("--detach", help="Submit the task, print its id, and exit.")]
StartWithin = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="The task expires if it has not started this many seconds after the submit or --start-at.",
    ),
]
RunWithin = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="The task expires if it has not ended this many seconds after its first start.",
    ),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", metavar="KEY=VALUE", help="Store a label with the task. You can repeat this option."
    ),
]
StartAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The earliest start, with a time zone, such as 2026-11-21T12:00:00Z."),
]
MaxStrikes = Annotated[
    int | None, typer.Option(help="The task fails when this many of its attempts have failed.")
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help=f"Submitting again with the same key does not create a second task. {IDEMPOTENCY_KEY}",
    ),
]
ImageOption = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", help="The first frame, if the model supports one."
    ),
]
