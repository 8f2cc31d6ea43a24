"""Arguments and options of ``daybreak models …``."""

from __future__ import annotations

from typing import Annotated

import typer

Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The name of the model.", show_default=False)]
NewAlias = Annotated[
    str,
    typer.Argument(metavar="ALIAS", help="The name by which clients request the model.", show_default=False),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="What the engine loads: the name of a model on a hub, or a folder or file on the workers.",
        show_default=False,
    ),
]
EngineOption = Annotated[
    str | None, typer.Option(help="The engine, as the workers name it.", show_default="vllm")
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="An option of the engine: max_model_len=4096 becomes --max-model-len 4096. You can repeat it.",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory of one replica, such as 16GB or 14.5GiB. Without this option, a replica gets its GPU for itself.",
    ),
]
GpusOption = Annotated[int | None, typer.Option(min=1, help="GPUs of one replica.", show_default="1")]
ReplicasOption = Annotated[
    int | None, typer.Option(min=1, help="Replicas at most.", show_default="--min-replicas, or 1")
]
MinReplicasOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Replicas at least. With 0, the first request starts the model.", show_default="0"
    ),
]
TargetLoadOption = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Requests that one replica should have. With more, another replica starts.",
        show_default="8",
    ),
]
IdleOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="How long the model must have no request before replicas above --min-replicas stop.",
        show_default="the server's",
    ),
]
FallbackOption = Annotated[
    str | None, typer.Option(metavar="ALIAS", help="The model that answers while this one is not ready.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until a replica is ready. Needs --min-replicas.")
]
