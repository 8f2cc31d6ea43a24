"""Tests of the fast start of Ray, which is used only if a setting, Ray's version and Ray's private parts allow it."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from daybreak_server.adapters.ray import fast_start
from daybreak_server.adapters.ray.fast_start import TESTED_SERIES, PrivatePart, reason_for_stock_start
from daybreak_server.settings.fast_start_setting import fast_start_allowed
from daybreak_server.settings.tree import load_settings

REPOSITORY = Path(__file__).parents[4]
SHIM = REPOSITORY / "deploy" / "image" / "ray-wrapper"
TESTED = f"{TESTED_SERIES[0]}.7"
PARTS = sorted({*fast_start.LEAN_NODE_PARTS, *fast_start.RAY_START_PARTS}, key=str)
needs_fast_start = pytest.mark.skipif(
    reason_for_stock_start(allowed=True, version=fast_start.installed_version()) is not None,
    reason="fast start was not tested with this Ray",
)


def test_a_tested_ray_with_all_private_parts_is_started_fast() -> None:
    assert reason_for_stock_start(allowed=True, version=TESTED) is None


@pytest.mark.parametrize("version", ["2.6.0", "2.600.0", "2.61.0", "3.0.0.dev0", "unknown", ""])
def test_an_untested_version_of_ray_gets_the_stock_start(version: str) -> None:
    """The version may be newer, older, a nightly build, or unknown."""
    assert f"Ray {version} is installed" in str(reason_for_stock_start(allowed=True, version=version))


def test_the_setting_and_missing_parts_are_reasons_for_the_stock_start() -> None:
    assert "ray.fast_start is off" in str(reason_for_stock_start(allowed=False, version=TESTED))
    reason = reason_for_stock_start(allowed=True, version=TESTED, problems=["a is missing", "b is missing"])
    assert "a is missing; b is missing" in str(reason)


def test_the_warning_says_in_one_line_what_happens_why_and_what_to_do() -> None:
    line = fast_start.warning("of this")
    assert "\n" not in line
    assert re.search(rf"stock start.*of this.*use Ray {re.escape(TESTED_SERIES[0])}\.x", line)


@needs_fast_start
def test_the_installed_ray_has_all_private_parts() -> None:
    assert not fast_start.problems(PARTS)


@needs_fast_start
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_missing_private_part_is_reported_by_name(
    part: PrivatePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test first deletes or replaces the part, and then makes the import of the part's module fail."""
    owner = importlib.import_module(part.module)
    *path, last = part.name.split(".")
    for name in path:
        owner = getattr(owner, name)
    with monkeypatch.context() as patch:
        if last == "__init__":  # never missing, because every class inherits one
            patch.setattr(owner, last, lambda self: None)
        else:
            patch.delattr(owner, last)
        assert [line for line in fast_start.problems(PARTS) if str(part) in line]
    monkeypatch.setitem(sys.modules, part.module, None)
    assert [line for line in fast_start.problems(PARTS) if f"{part} is missing" in line]


@needs_fast_start
@pytest.mark.parametrize("part", [part for part in PARTS if part.parameters], ids=str)
def test_a_private_part_with_changed_parameters_is_reported_by_name(part: PrivatePart) -> None:
    changed = PrivatePart(part.module, part.name, (*part.parameters, "of_tomorrow"))
    assert changed.problem() == f"{part} no longer takes of_tomorrow"


def test_pyproject_allows_only_the_tested_series_of_ray() -> None:
    """For a new series of Ray, change TESTED_SERIES, pyproject, deploy/image/ray-wrapper, the lock and the chart."""
    project = tomllib.loads((REPOSITORY / "services/python/pyproject.toml").read_text())["project"]
    (requirement,) = (Requirement(line) for line in project["optional-dependencies"]["ray"])
    numbers = sorted(tuple(map(int, series.split("."))) for series in TESTED_SERIES)
    (oldest_major, oldest_minor), (major, minor) = numbers[0], numbers[-1]
    assert str(requirement.specifier) == f"<{major}.{minor + 1},>={oldest_major}.{oldest_minor}"
    lock = (REPOSITORY / "requirements.lock").read_text()
    (locked,) = re.findall(r"^ray==(\S+)", lock, re.MULTILINE)
    assert locked.startswith(f"{major}.{minor}.")
    values = yaml.safe_load((REPOSITORY / "deploy/helm/daybreak/values.yaml").read_text())
    assert values["ray"]["version"] == locked


@pytest.mark.parametrize("word", ["", "true", "on", "1", "True", "false", "off", "0", "No", "f"])
def test_the_setting_that_is_read_early_equals_the_one_in_the_tree(word: str, tmp_path: Path) -> None:
    """The setting may come from a variable, a file, or both. The variable takes precedence."""
    file = tmp_path / "daybreak.yaml"
    for text in ("", "redis: {prefix: a}", "ray: {}", "ray: {fast_start: false}", "ray: {fast_start: on}"):
        file.write_text(text)
        environ = {"DAYBREAK_RAY__FAST_START": word, "DAYBREAK_CONFIG": str(file)}
        assert fast_start_allowed(environ) == load_settings(environ=environ).ray.fast_start


@pytest.mark.parametrize(
    "text", ["ray: {", "- 1", "ray: 3", "\udcff", "a: !!timestamp x", "a: !!int x", "[" * 5000]
)
def test_an_unreadable_settings_file_does_not_forbid_the_fast_start(text: str, tmp_path: Path) -> None:
    """The program that reads all settings reports what is wrong with the file."""
    file = tmp_path / "daybreak.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert fast_start_allowed({"DAYBREAK_CONFIG": str(file)})
    assert fast_start_allowed({"DAYBREAK_CONFIG": str(tmp_path / "absent")})


class Image:
    """The image's ``ray`` command, with stubs of ``ray`` and ``python`` that only print their arguments."""

    def __init__(self, folder: Path, *, ray: str) -> None:
        for program in ("ray", "python"):
            path = folder / "bin" / program
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\necho "{program} $*"\n')
            path.chmod(0o755)
        (folder / "lib" / "python3.11" / "site-packages" / f"ray-{ray}.dist-info").mkdir(parents=True)
        self._command = folder / "shim"
        self._command.write_text(SHIM.read_text().replace("/opt/daybreak/", f"{folder}/"))

    def output_of(self, *arguments: str, setting: str = "") -> str:
        environment = {"PATH": os.environ["PATH"], "DAYBREAK_RAY__FAST_START": setting}
        result = subprocess.run(
            ["bash", self._command, *arguments], check=True, env=environment, capture_output=True, text=True
        )
        return result.stdout.strip()


@pytest.fixture
def listening() -> Iterator[str]:
    """Listen on a free port, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("series", TESTED_SERIES)
def test_the_image_answers_a_health_check_itself_with_each_tested_ray(
    series: str, tmp_path: Path, listening: str
) -> None:
    image = Image(tmp_path, ray=f"{series}.3")
    assert image.output_of("health-check", "--address", listening) == ""
    assert image.output_of("health-check", "--address", listening, setting="true") == ""


@pytest.mark.parametrize(("ray", "setting"), [("2.99.0", ""), (TESTED, "off"), (TESTED, "False")])
def test_the_image_passes_a_health_check_to_ray_if_fast_start_is_not_allowed(
    ray: str, setting: str, tmp_path: Path, listening: str
) -> None:
    output = Image(tmp_path, ray=ray).output_of("health-check", "--address", listening, setting=setting)
    assert output == f"ray health-check --address {listening}"


def test_the_image_starts_ray_with_our_entrypoint_and_passes_other_commands_to_ray(tmp_path: Path) -> None:
    image = Image(tmp_path, ray="2.99.0")
    assert image.output_of("start", "--head", "--block") == (
        "python -m daybreak_server.entrypoints.ray_start start --head --block"
    )
    assert image.output_of("status", "--address=a:1") == "ray status --address=a:1"
    assert image.output_of("health-check") == "ray health-check"
