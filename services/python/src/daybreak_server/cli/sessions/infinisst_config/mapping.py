"""Translates a configuration file of InfiniSST into Daybreak's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from daybreak_server.cli.sessions.infinisst_config.config_file import (
    PairModel,
    RayOptions,
    SessionsConfig,
    SessionsConfigError,
)
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads.speech.spec import SPEC

_MOST_BLOCKS = 4
_DASHBOARD = RayOptions()


@dataclass(frozen=True, slots=True)
class MappedSettings:
    """The tree of settings, and notes on the parts of the file that have no setting."""

    tree: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def as_yaml(self) -> str:
        """A file for ``daybreakd up --config``. The notes are its comments."""
        notes = "".join(f"# {note}\n" for note in self.notes)
        return notes + yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True)


def settings_of(config: SessionsConfig) -> MappedSettings:
    """Map a configuration onto Daybreak's settings. Language pairs with equal configurations of the model share a pool.

    :raises SessionsConfigError: if Daybreak's settings do not accept a value.
    """
    models: dict[PairModel, list[str]] = {}
    for pair, language in config.languages.items():
        without_name = language.model.model_copy(update={"model_name": ""})  # the name has no effect
        models.setdefault(without_name, []).append(pair)
    names = [f"speech-{number}" if number > 1 else "speech" for number in range(1, len(models) + 1)]
    serving = config.serving
    tree: dict[str, Any] = {
        "http": {"host": serving.host, "port": serving.port},
        "pools": {
            name: _pool(config, model, pairs)
            for name, (model, pairs) in zip(names, models.items(), strict=True)
        },
    }
    if len(names) > 1:
        tree["http"]["default_pools"] = {"sessions": names[0]}
    try:
        Settings.model_validate(tree)
    except ValidationError as exc:
        lines = (f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise SessionsConfigError(*lines) from exc
    pools = dict(zip(names, models.items(), strict=True))
    return MappedSettings(tree, [*_notes(config), *_notes_on_pools(pools)])


def _pool(config: SessionsConfig, model: PairModel, pairs: list[str]) -> dict[str, Any]:
    serving = config.serving
    devices = sum(pair in pairs for pair in serving.gpu_language_map.values())
    return {
        "workload": "speech",
        **({"model": model.state_dict_path} if model.state_dict_path else {}),
        "groups": max(1, devices),
        "sessions": {
            "session_timeout_s": serving.session_timeout_s,
            "strategy": "iteration" if serving.enable_dynamic_batching else "single",
            "max_batch_size": serving.max_batch_size,
            "batch_timeout_ms": serving.batch_timeout_ms,
            "latency_multiplier": model.latency_multiplier,
            "max_latency_multiplier": max(_MOST_BLOCKS, model.latency_multiplier),
        },
    }


def _notes_on_pools(pools: Mapping[str, tuple[PairModel, list[str]]]) -> list[str]:
    """Notes on pools that load the same model. Each of these pools accepts all pairs of the model.

    If one of them is the default pool, which is the first of all pools, it gets the sessions of requests that name no
    pool. If none of them is the default pool, requests that name no pool are refused.
    """
    default = next(iter(pools), None)
    first: dict[str | None, str] = {}
    notes = []
    for name, (model, pairs) in pools.items():
        other = first.setdefault(model.state_dict_path, name)
        if other == default != name:
            effect = f"it gets their sessions, unless a request names the pool {name}"
        elif other != name:
            effect = f"a request for them must name one of the two pools: {other} or {name}"
        else:
            continue
        notes.append(f"languages ({', '.join(pairs)}): the pool {other} has the same model, so {effect}")
    return notes


def _notes(config: SessionsConfig) -> list[str]:
    """What the settings cannot express, and what to do instead."""
    cluster, serving, notes = config.ray_cluster, config.serving, []
    if cluster.ray_address:
        notes.append(f"ray_cluster.ray_address: run `daybreakd serve --address {cluster.ray_address}`")
    if cluster.num_cpus is not None or cluster.num_gpus is not None:
        notes.append(
            "ray_cluster.num_cpus, num_gpus: no effect; `cpus_per_rank` and `gpus_per_rank` reserve CPUs and GPUs"
        )
    if (cluster.dashboard_host, cluster.dashboard_port) != (
        _DASHBOARD.dashboard_host,
        _DASHBOARD.dashboard_port,
    ):
        notes.append("ray_cluster.dashboard_host, dashboard_port: no effect; Grafana shows the pools")
    names = sorted(
        {language.model.model_name for language in config.languages.values()} - {PairModel().model_name}
    )
    if names:
        notes.append(
            f"model_name ({', '.join(names)}): no effect; state_dict_path is the folder of the model with all its parts"
        )
    has = {(pair.source, pair.target) for pair in SPEC.pairs({})}
    missing = sorted(
        name
        for name, language in config.languages.items()
        if not language.model.state_dict_path
        and (language.src_code.lower(), language.tgt_code.lower()) not in has
    )
    if missing:
        notes.append(
            f"languages ({', '.join(missing)}): the small model of the package does not have them; set "
            "model_config.state_dict_path to the folder of a model that does"
        )
    if serving.cuda_visible_devices is not None:
        notes.append(
            f"serving.cuda_visible_devices: start `daybreakd` with CUDA_VISIBLE_DEVICES={serving.cuda_visible_devices}"
        )
    if serving.load_balance_strategy != "least_loaded":
        notes.append(
            f"serving.load_balance_strategy {serving.load_balance_strategy}: no effect; groups that have "
            "room take sessions themselves"
        )
    return notes
