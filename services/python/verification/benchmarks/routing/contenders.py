"""The routers to measure, started as their users start them, each with one process and two back ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verification.benchmarks.competitors.contenders import ENVIRONMENTS
from verification.benchmarks.routing.backend import CHAT, MODEL

HERE = Path(__file__).resolve().parent
POOL = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The port and folder of a router, the ports of its back ends, and the Redis that only Daybreak uses."""

    port: int
    folder: Path
    backends: Sequence[int]
    redis_url: str

    @property
    def urls(self) -> list[str]:
        """The addresses of the back ends."""
        return [f"http://127.0.0.1:{port}" for port in self.backends]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A router. ``command`` writes the router's configuration and returns the command line that starts the router. The
    command line begins with the program's name, without a path."""

    name: str
    package: str
    how: str
    command: Callable[[Place], Sequence[str]]
    environment: str | None = None
    """The name of a folder in ``build/competitors``, or ``None`` for Daybreak's environment."""
    path: str = CHAT.decode()
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def requirements(self) -> Path:
        """The file that lists the packages of the router's environment. Daybreak has no such file."""
        return HERE / "requirements" / f"{self.environment}.txt"

    @property
    def programs(self) -> Path:
        """The folder with the environment's Python and commands."""
        if self.environment is None:
            return Path(sys.executable).parent
        return ENVIRONMENTS / self.environment / "bin"

    @property
    def installed(self) -> bool:
        """Whether the router's environment exists."""
        return (self.programs / "python").exists()


def _daybreak(place: Place) -> Sequence[str]:
    settings = {
        "data_dir": str(place.folder),
        "redis": {"url": place.redis_url},
        "http": {"port": place.port},
        "pools": {POOL: {"workload": "echo-serve"}},
    }
    file = place.folder / "daybreak.yaml"
    file.write_text(json.dumps(settings))  # JSON is valid YAML
    return ("daybreakd", "gateway", "--config", str(file))


def _vllm(place: Place) -> Sequence[str]:
    return (
        "vllm-router", "--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.port + 1),
        "--worker-urls", *place.urls, "--policy", "round_robin", "--log-level", "warning",
    )  # fmt: skip


def _sglang(place: Place) -> Sequence[str]:
    return (
        "sglang-router", "launch", "--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port",
        str(place.port + 1), "--worker-urls", *place.urls, "--policy", "round_robin", "--log-level", "warn",
    )  # fmt: skip


def _litellm(place: Place) -> Sequence[str]:
    models = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in place.urls
    ]
    file = place.folder / "litellm.yaml"
    file.write_text(json.dumps({"model_list": models, "litellm_settings": {"num_retries": 0}}))
    return ("litellm", "--host", "127.0.0.1", "--port", str(place.port), "--config", str(file))


DAYBREAK = Contender(
    name="Daybreak",
    package="daybreak-server",
    how="`daybreakd gateway`, policy `least_loaded`",
    command=_daybreak,
    path=f"/v1/pools/{POOL}/serve{CHAT.decode()}",
)
PEERS: Sequence[Contender] = (
    Contender(
        name="vllm-router", package="vllm-router", environment="vllm-router", how="Rust, policy `round_robin`",
        command=_vllm,
    ),
    Contender(
        name="sglang-router", package="sglang-router", environment="sglang-router",
        how="Rust, policy `round_robin`", command=_sglang,
    ),
    Contender(
        name="LiteLLM", package="litellm", environment="litellm", how="Python, `simple-shuffle`", command=_litellm,
        variables=(
            ("LITELLM_LOG", "ERROR"),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            # None of the routers checks keys.
            ("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true"),
        ),
    ),
)  # fmt: skip
"""The routers that :mod:`verification.benchmarks.competitors.environments` installs from the package registry."""
CONTENDERS: Sequence[Contender] = (DAYBREAK, *PEERS)
