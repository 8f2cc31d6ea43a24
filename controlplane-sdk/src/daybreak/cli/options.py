"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daybreak.wire import IDEMPOTENCY_KEY, Priority

JsonOption = Annotated[
    bool, typer.Option("--json", help="Only JSON on stdout; lists and streams as JSON lines.")
]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id: video_01JD…", show_default=False)]
PriorityOption = Annotated[Priority, typer.Option(help="Within your tenant, a higher one goes first.")]
OutOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="A file, a folder (one that exists, or DIR/), or - for stdout.",
        show_default="out/ID and its ending",
    ),
]
PreviewsOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Keep pictures of the work here.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Hand it in, print the id, and leave.")]
StartWithin = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="It expires if not begun by then.")
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="A note to keep with the task; may be repeated."),
]
StartAt = Annotated[
    str | None, typer.Option(metavar="TIME", help="Not before, with a zone: 2026-11-21T12:00:00Z.")
]
MaxStrikes = Annotated[int | None, typer.Option(help="How many attempts may fail before the task does.")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help=f"Handing in again under the same key makes no second task. {IDEMPOTENCY_KEY}"
    ),
]
ImageOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, metavar="FILE", help="First frame, where the model takes one."),
]
RunWithin = Annotated[float | None, typer.Option(metavar="SECONDS", help="It expires if not ended by then.")]
