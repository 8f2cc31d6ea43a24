"""Settings of workers: processes on machines outside Ray that run model servers, which are called engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from daybreak_server.settings.rules.engine_command import EngineCommand
from daybreak_server.settings.rules.http import Networks
from daybreak_server.settings.rules.numbers import Count, Duration, DurationOrNone
from daybreak_server.settings.section import Section, checked

BUILT_IN_ENGINES: Mapping[str, Mapping[str, Any]] = {
    "vllm": {
        "command": "vllm serve {source} --served-model-name {alias} --host {host} --port {port} {args}",
        "capacity": 256,
    },
    "llama.cpp": {
        "command": "llama-server --model {source} --alias {alias} --host {host} --port {port} {args}",
        "capacity": 64,
    },
    "sglang": {
        "command": "sglang serve --model-path {source} --served-model-name {alias} --host {host} --port {port} {args}",
        "capacity": 256,
    },
}
"""The engines that every worker knows. Settings for one of these engines replace only the fields that they contain."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")


class EngineSettings(Section):
    """A program that serves models through the HTTP API of OpenAI."""

    command: EngineCommand = Field(
        "",
        description="Command that starts the program, without a shell: `vllm serve {source} --served-model-name "
        "{alias} --host {host} --port {port} {args}`. `{args}` becomes the options of the model: `max_model_len: 4096` "
        "becomes `--max-model-len 4096`.",
    )
    health: str = Field(
        "/health",
        pattern=r"^/[\x21-\x7e]*$",
        description="Path that answers with a status from 200 to 299 once the model is loaded.",
    )
    capacity: Count = Field(
        64,
        description="How many requests one engine process gets at once. The worker refuses more, and the gateway tries "
        "another worker.",
    )
    start_s: Duration = Field(
        1800.0,
        description="How long the program may take to load its model. After this time, the worker stops it and "
        "starts it again.",
    )
    stop_s: DurationOrNone = Field(
        15.0,
        description="How long the program may take to stop after SIGTERM. After this time, the worker kills it.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables of the program, added to those of the worker.",
    )


class WorkerSettings(Section):
    """Workers: processes on machines outside Ray, which run model servers (`daybreakd worker`)."""

    token: str | None = Field(
        None,
        description="Secret that a worker and its gateway send each other as `Authorization: Bearer …`. Set it on "
        "both, unless both are on one machine.",
    )
    allowed_networks: Networks = Field(
        (),
        description="Networks in which the URLs of workers must lie, such as `10.0.0.0/8`. Gateways refuse workers "
        "elsewhere. If the list is empty and `token` is set, a worker may have any URL. If neither is set, the URL "
        "must have the address from which the worker registers, or a loopback address.",
    )
    heartbeat_s: Duration = Field(
        1.0, description="How often a worker reports to its gateway, in seconds. It reports changes at once."
    )
    lease_s: Duration = Field(
        10.0,
        description="How long a worker may be silent, in seconds. After this time, it counts as lost, and gateways "
        "send requests to other workers.",
    )
    idle_s: Duration = Field(
        300.0,
        description="After this many seconds without a request for a model, its replicas beyond `min_replicas` stop. "
        "This setting applies to models that were registered without an `idle_s`.",
    )
    timeout_s: Duration = Field(
        600.0,
        description="How long a request may take at a worker, from its arrival there to the end of its answer. The "
        "header `Daybreak-Deadline-S` can only shorten this. The gateway also applies `router.timeout_s`.",
    )
    drain_s: DurationOrNone = Field(
        30.0,
        description="How long requests may continue when a model or the worker stops, in seconds.",
    )
    engines: dict[str, EngineSettings] = Field(
        default_factory=lambda: {
            name: EngineSettings.model_validate(fields) for name, fields in BUILT_IN_ENGINES.items()
        },
        description="The key is the name of the engine. `vllm`, `llama.cpp` and `sglang` exist already, and you may "
        "override single settings of them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_built_in(cls, data: Any) -> Any:
        """Add the built-in engines, and the fields of a built-in engine that are not overridden."""
        if not isinstance(data, Mapping) or not isinstance(given := data.get("engines"), Mapping):
            return data
        engines: dict[Any, Any] = {**BUILT_IN_ENGINES}
        for name, engine in given.items():
            base = BUILT_IN_ENGINES.get(name, {})
            engines[name] = {**base, **engine} if isinstance(engine, Mapping) else engine
        return {**data, "engines": engines}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = [
            f"engines: the name {name!r} cannot be used; write up to 31 lower-case letters, digits, `.`, `_` "
            "and `-`, with a letter or digit first"
            for name in self.engines
            if not _NAME.fullmatch(name)
        ]
        problems += [
            f"engines.{name} needs a command, such as `my-server --port {{port}} --model {{source}}`"
            for name, engine in self.engines.items()
            if not engine.command.strip()
        ]
        return checked(self, problems)
