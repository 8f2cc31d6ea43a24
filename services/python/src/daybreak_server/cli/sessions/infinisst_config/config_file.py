"""The configuration files of InfiniSST, as its documents show them.

There are two forms: the JSON of its serving system (``ray_cluster``, ``serving``, ``languages``), and the YAML of its
scheduler (``gpu_language_map``, ``model_configs``, ``scheduler``, ``server``). This module converts the YAML form to
the JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from daybreak_server.batching.iterations.rules import MAX_BATCH_SIZE
from daybreak_server.settings.rules.numbers import NUMBER, Port

BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE), NUMBER]
Multiplier = Annotated[int, Field(ge=1, le=8), NUMBER]
DeviceMap = dict[Annotated[int, Field(ge=0), NUMBER], str]
"""The language pair of each device, by the device's index."""


class SessionsConfigError(ValueError):
    """The file cannot be used. ``problems`` has a line for each reason. If a field is wrong, the line names it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=True
    )


class RayOptions(_Part):
    """The cluster that the groups run on."""

    ray_address: str | None = None
    num_cpus: Annotated[float, Field(ge=0), NUMBER] | None = None
    num_gpus: Annotated[float, Field(ge=0), NUMBER] | None = None
    dashboard_host: str = "127.0.0.1"
    dashboard_port: Port = 8265


class Serving(_Part):
    """The server, and how it forms batches."""

    host: str = "127.0.0.1"
    port: Port = 8000
    cuda_visible_devices: str | None = None
    gpu_language_map: DeviceMap = Field(default_factory=lambda: {0: "English -> Chinese"})
    max_batch_size: BatchSize = MAX_BATCH_SIZE
    batch_timeout_ms: Annotated[float, Field(ge=0), NUMBER] = 100.0
    enable_dynamic_batching: bool = True
    load_balance_strategy: Literal["least_loaded", "round_robin", "gpu_memory"] = "least_loaded"
    session_timeout_s: Annotated[float, Field(gt=0), NUMBER] = 300.0
    """This field comes from the YAML form, which calls it ``scheduler.session_timeout``."""


class PairModel(_Part):
    """Which model a language pair uses."""

    model_name: str = "speech"
    state_dict_path: str | None = Field(None, validation_alias=AliasChoices("state_dict_path", "model_path"))
    """InfiniSST's README calls this field ``model_path`` where the README explains how to add a language pair."""
    latency_multiplier: Multiplier = 1


class Language(_Part):
    """A language pair."""

    source_lang: str
    target_lang: str
    src_code: str
    tgt_code: str
    model: PairModel = Field(default_factory=PairModel, alias="model_config")


class SessionsConfig(_Part):
    """The JSON form."""

    ray_cluster: RayOptions = Field(default_factory=RayOptions)
    serving: Serving = Field(default_factory=Serving)
    languages: dict[str, Language] = Field(min_length=1)

    @field_validator("languages")
    @classmethod
    def _names_fit(cls, languages: dict[str, Language]) -> dict[str, Language]:
        for name, language in languages.items():
            expected = f"{language.source_lang} -> {language.target_lang}"
            if name != expected:
                raise ValueError(
                    f"the pair {name!r} has the languages of {expected!r}; correct its name or languages"
                )
            for side, lang, code in (
                ("src_code", language.source_lang, language.src_code),
                ("tgt_code", language.target_lang, language.tgt_code),
            ):
                known = _known_code(lang)
                if known not in {None, code.lower()}:
                    raise ValueError(f"{name}.{side}: {lang} has the code {known!r}, not {code!r}")
        return languages

    @model_validator(mode="after")
    def _pairs_exist(self) -> Self:
        if "gpu_language_map" not in self.serving.model_fields_set:
            return self  # the file assigns no devices, so each model gets one device
        for gpu, pair in self.serving.gpu_language_map.items():
            if pair not in self.languages:
                raise ValueError(
                    f"serving.gpu_language_map.{gpu}: there is no pair {pair!r} in `languages`, "
                    f"which has: {', '.join(self.languages)}"
                )
        return self

    def as_json(self) -> str:
        """The configuration as the text of a file."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def default_config() -> SessionsConfig:
    """The configuration of the built-in speech model, with one device and all language pairs of the model."""
    names = {"German": "de", "Chinese": "zh", "English": "en"}
    return SessionsConfig(
        languages={
            f"English -> {name}": _language("English", name, "en", code) for name, code in names.items()
        }
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice. Unlike in Daybreak's settings, keys may be numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class refuses such a key
            if key in found:
                line = key_node.start_mark.line + 1
                raise SessionsConfigError(f"line {line}: {key!r} is given twice; keep one of them")
            found.add(key)
        return super().construct_mapping(node, deep=deep)


def _without_tabs(text: str) -> str:
    """The text, which the YAML loader can read also if it is JSON that is indented with tabs.

    In JSON, a tab is never a part of a string.
    """
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", "  ")


def read_config(path: Path) -> SessionsConfig:
    """Read either form. :raises SessionsConfigError: if the file cannot be read, with the fields that are wrong."""
    try:
        text = _without_tabs(path.read_text(encoding="utf-8"))
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except (OSError, UnicodeDecodeError) as exc:
        raise SessionsConfigError(f"cannot read {path}: {exc}") from exc
    except yaml.YAMLError as exc:
        raise SessionsConfigError(f"{path} is neither JSON nor YAML: {' '.join(str(exc).split())}") from exc
    except SessionsConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as exc:  # for example for `!!timestamp x`
        raise SessionsConfigError(f"{path} has a value that does not fit its YAML tag: {exc}") from exc
    except RecursionError:
        raise SessionsConfigError(f"{path} has too many levels; nest it less deeply") from None
    if not isinstance(found, Mapping) or not found:
        raise SessionsConfigError(f"{path} has no fields; `--create-default` writes a complete file")
    try:
        if not set(SessionsConfig.model_fields) & set(found):
            return _from_scheduler(_SchedulerConfig.model_validate(found))
        return SessionsConfig.model_validate(found)
    except ValidationError as exc:
        raise SessionsConfigError(*(_line(error) for error in exc.errors())) from exc


class _Scheduler(_Part):
    max_batch_size: BatchSize = MAX_BATCH_SIZE
    batch_timeout: Annotated[float, Field(ge=0), NUMBER] = 0.1
    session_timeout: Annotated[float, Field(gt=0), NUMBER] = 300.0


class _Server(_Part):
    host: str = "127.0.0.1"
    port: Port = 8000


class _SchedulerConfig(_Part):
    gpu_language_map: DeviceMap = Field(min_length=1)
    configs: dict[str, PairModel] = Field(default_factory=dict, alias="model_configs")
    scheduler: _Scheduler = Field(default_factory=_Scheduler)
    server: _Server = Field(default_factory=_Server)

    @field_validator("gpu_language_map")
    @classmethod
    def _map_has_pairs(cls, devices: dict[int, str]) -> dict[int, str]:
        return {device: _pair(text) for device, text in devices.items()}

    @field_validator("configs")
    @classmethod
    def _configs_have_pairs(cls, configs: dict[str, PairModel]) -> dict[str, PairModel]:
        return {_pair(text): model for text, model in configs.items()}


def _pair(text: str) -> str:
    """The name of a language pair, as the JSON form writes it."""
    parts = [part.strip() for part in text.split("->")]
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"{text!r} is no language pair; write it as `English -> Chinese`")
    return " -> ".join(parts)


def _from_scheduler(config: _SchedulerConfig) -> SessionsConfig:
    languages = {}
    fields = dict.fromkeys(config.gpu_language_map.values(), "gpu_language_map")
    fields |= dict.fromkeys(config.configs, "model_configs")
    for pair, field in fields.items():
        source, target = pair.split(" -> ")
        model = config.configs.get(pair, PairModel())
        languages[pair] = _language(source, target, _code(source, field), _code(target, field), model)
    return SessionsConfig(
        serving=Serving(
            host=config.server.host,
            port=config.server.port,
            gpu_language_map=config.gpu_language_map,
            max_batch_size=config.scheduler.max_batch_size,
            batch_timeout_ms=config.scheduler.batch_timeout * 1000,
            session_timeout_s=config.scheduler.session_timeout,
        ),
        languages=languages,
    )


def _language(source: str, target: str, src: str, tgt: str, model: PairModel | None = None) -> Language:
    return Language(
        source_lang=source, target_lang=target, src_code=src, tgt_code=tgt, model=model or PairModel()
    )


def _code(name: str, field: str) -> str:
    from daybreak_server.api.sessions.languages import NAMES

    code = _known_code(name)
    if code is None:
        known = ", ".join(NAMES.values())
        raise SessionsConfigError(f"{field}: the language {name!r} is not known; use one of: {known}")
    return code


def _known_code(name: str) -> str | None:
    from daybreak_server.api.sessions.languages import NAMES

    return next((code for code, known in NAMES.items() if name.lower() in {code, known.lower()}), None)


def _line(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
