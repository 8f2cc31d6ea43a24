"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daybreak.wire import Priority

JsonOption = Annotated[
    bool, typer.Option("--json", help="Only JSON on stdout; lists and streams as JSON lines.")
]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id: video_01JD…", show_default=False)]
PriorityOption = Annotated[Priority, typer.Option(help="Within your tenant, a higher one goes first.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", metavar="FILE", help="A file, or a folder that exists.", show_default="out/ID.mp4"
    ),
]
PreviewsOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Keep pictures of the work here.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Hand it in, print the id, and leave.")]
StartWithin = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="It expires if not begun by then.")
]
RunWithin = Annotated[float | None, typer.Option(metavar="SECONDS", help="It expires if not ended by then.")]
