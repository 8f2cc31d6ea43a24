"""The command line of an engine, which is made from a template and a model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from daybreak.wire import AssignedModel
from daybreak_server.model_worker.commands import CommandError, command_of, options_of
from daybreak_server.settings.workers import BUILT_IN_ENGINES, EngineSettings, WorkerSettings


def model(**changes: Any) -> AssignedModel:
    return AssignedModel(**{"alias": "small", "source": "org/model", "engine": "e", **changes})


def test_a_command_is_its_template_filled_in() -> None:
    args = {"max_model_len": 4096, "gpu_memory_utilization": 0.5}
    words = command_of(BUILT_IN_ENGINES["vllm"]["command"], model(args=args), host="127.0.0.1", port=1234)
    assert words == [
        *(
            "vllm",
            "serve",
            "org/model",
            "--served-model-name",
            "small",
            "--host",
            "127.0.0.1",
            "--port",
            "1234",
        ),
        *("--max-model-len", "4096", "--gpu-memory-utilization", "0.5"),
    ]


def test_no_shell_reads_what_a_model_brings() -> None:
    evil = model(source="x; rm -rf $HOME `id`", args={"name": "a b; {port}", "x": "{alias}"})
    words = command_of("serve 'a b' {source}:{port} --port={port} {args}", evil, host="h", port=1)
    assert words == [
        *("serve", "a b", "x; rm -rf $HOME `id`:1", "--port=1"),
        *("--name", "a b; {port}", "--x", "{alias}"),
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"enable_prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"enforce_eager": False, "seed": None}, []),
        ({"lora_modules": ["a=1", "b=2"]}, ["--lora-modules", "a=1", "b=2"]),
        ({"rope_scaling": {"factor": 2.0}}, ["--rope-scaling", '{"factor": 2.0}']),
    ],
)
def test_each_kind_of_value_becomes_options_of_the_engine(args: dict[str, Any], words: list[str]) -> None:
    assert options_of(args) == words


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"args": {"host": "0.0.0.0"}}, "the worker sets host"),
        ({"args": {"-x": 1}}, "not the name of an option"),
        ({"args": {"a b": 1}}, "not the name of an option"),
        ({"source": "--trust-remote-code"}, "looks like an option"),
    ],
)
def test_a_model_cannot_change_what_the_worker_sets(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        command_of(BUILT_IN_ENGINES["vllm"]["command"], model(**changes), host="h", port=1)


def test_a_template_without_args_refuses_them() -> None:
    with pytest.raises(CommandError, match=r"has no \{args\}"):
        command_of("serve --port {port}", model(args={"a": 1}), host="h", port=1)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("serve --port {port} '", "check its quotes"),
        ("serve --port {prot}", "the placeholder {prot} is unknown"),
        ("serve --port {port} --x={args}", "a word of its own"),
        ("serve {source}", "must contain {port}"),
    ],
)
def test_a_wrong_template_is_refused_when_the_settings_are_read(command: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EngineSettings(command=command)


def test_settings_override_single_fields_of_a_built_in_engine() -> None:
    engines = WorkerSettings.model_validate({"engines": {"vllm": {"capacity": 8}}}).engines
    assert engines["vllm"].capacity == 8
    assert engines["vllm"].command == BUILT_IN_ENGINES["vllm"]["command"]
    assert list(engines) == ["vllm", "llama.cpp", "sglang"]
    with pytest.raises(ValidationError, match=r"engines\.mine needs a command"):
        WorkerSettings.model_validate({"engines": {"mine": {}}})
    with pytest.raises(ValidationError, match="the name 'My Engine' cannot be used"):
        WorkerSettings.model_validate({"engines": {"My Engine": {"command": "x {port}"}}})
