"""The servers to measure. The benchmark starts each server as its users start it, with one thread of torch, and
measures it with several batch settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verification.benchmarks.competitors.contenders import ENVIRONMENTS

HERE = Path(__file__).resolve().parent
APPS = "verification.benchmarks.embedding.apps"
MODEL_NAME = "minilm"
US = "Daybreak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The port, the folder and the model of a server."""

    port: int
    folder: Path
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Batch settings. Daybreak gets ``change`` in a PATCH request. The other servers get theirs when they start."""

    what: str
    max_batch: int = 32
    wait_ms: float = 0.0
    arguments: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server. ``command`` returns the command that starts it, without the path of its Python."""

    name: str
    package: str
    how: str
    variants: Sequence[Variant]
    """The settings to try. A short run uses only the first."""
    command: Callable[[Place, Variant], Sequence[str]] = lambda place, variant: ()
    environment: str | None = None
    """A folder in ``build/competitors``. ``None`` means Daybreak's environment."""
    path: str = "/v1/embeddings"
    model: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def requirements(self) -> Path:
        """The file that lists the packages of its environment."""
        return HERE / "requirements" / f"{self.environment}.txt"

    @property
    def programs(self) -> Path:
        """The folder of its Python and commands."""
        if self.environment is None:
            return Path(sys.executable).parent
        return ENVIRONMENTS / self.environment / "bin"

    @property
    def installed(self) -> bool:
        """Whether its environment exists."""
        return (self.programs / "python").exists()


def _infinity(place: Place, variant: Variant) -> Sequence[str]:
    return (
        "-m", f"{APPS}.infinity_app", "v2", "--model-id", place.model, "--served-model-name", MODEL_NAME, "--host",
        "127.0.0.1", "--port", str(place.port), "--batch-size", str(variant.max_batch), "--engine", "torch", "--device",
        "cpu", "--dtype", "float32", "--no-vector-disk-cache", "--log-level", "warning", *variant.arguments,
    )  # fmt: skip


def _litserve(place: Place, variant: Variant) -> Sequence[str]:
    return ("-m", f"{APPS}.litserve_app", str(place.port), *variant.arguments)


def _mosec(place: Place, variant: Variant) -> Sequence[str]:
    port = str(place.port)
    return (
        "-m", f"{APPS}.mosec_app", "--address", "127.0.0.1", "--port", port, "--timeout", "120000", "--log-level",
        "warning",
    )  # fmt: skip


def _ray_serve(place: Place, variant: Variant) -> Sequence[str]:
    return ("-m", f"{APPS}.ray_serve_app", str(place.port), str(place.folder / "ray"))


DAYBREAK = Contender(
    name=US,
    package="daybreak-server",
    how="`daybreakd up`, one group of one rank",
    variants=(
        Variant(what="`eager`, 32", change={"mode": "eager", "max_batch_size": 32}),
        Variant(what="`adaptive`, 32", change={"mode": "adaptive", "max_batch_size": 32}),
        Variant(what="`eager`, 64", change={"mode": "eager", "max_batch_size": 64}),
    ),
)
PEERS: Sequence[Contender] = (
    Contender(
        name="infinity", package="infinity-emb", environment="infinity-emb", how="`infinity_emb v2 --engine torch`",
        command=_infinity, path="/embeddings", model=MODEL_NAME,
        variables=(("DO_NOT_TRACK", "1"), ("INFINITY_ANONYMOUS_USAGE_STATS", "0")),
        variants=(
            Variant(what="batch size 32", arguments=("--no-compile", "--no-bettertransformer")),
            Variant(what="batch size 64", max_batch=64, arguments=("--no-compile", "--no-bettertransformer")),
            Variant(what="batch size 32, its defaults (compiled)"),
        ),
    ),
    Contender(
        name="LitServe", package="litserve", environment="litserve", how="one worker with `batch` and `unbatch`",
        command=_litserve,
        variants=(
            Variant(what="32 texts, 5 ms", wait_ms=5),
            Variant(what="32 texts, 20 ms", wait_ms=20),
            Variant(what="32 texts, 5 ms, `fast_queue`", wait_ms=5, arguments=("fast",)),
        ),
    ),
    Contender(
        name="mosec", package="mosec", environment="mosec", how="one worker",
        command=_mosec,
        variants=(
            Variant(what="32 texts, 5 ms", wait_ms=5),
            Variant(what="32 texts, 20 ms", wait_ms=20),
            Variant(what="64 texts, 5 ms", max_batch=64, wait_ms=5),
        ),
    ),
    Contender(
        name="Ray Serve", package="ray", environment="ray-serve", how="one replica with `@serve.batch`",
        command=_ray_serve,
        variants=(
            Variant(what="32 texts, 5 ms", wait_ms=5),
            Variant(what="32 texts, 20 ms", wait_ms=20),
            Variant(what="64 texts, 10 ms", max_batch=64, wait_ms=10),
        ),
    ),
)  # fmt: skip
"""The other servers. Their packages are installed from the package registry into ``build/competitors``."""
CONTENDERS: Sequence[Contender] = (DAYBREAK, *PEERS)
