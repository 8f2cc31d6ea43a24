"""Tests of ``daybreakd sessions config``: both forms of InfiniSST's files, and the settings that they become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from daybreak_server.settings.tree import Settings, load_settings

if TYPE_CHECKING:
    from .conftest import Daybreakd

SCHEDULER = """
gpu_language_map: {0: "English -> Chinese", 1: "English -> German"}
model_configs:
  English -> German: {model_name: other, state_dict_path: /models/german, latency_multiplier: 6}
scheduler: {max_batch_size: 8, batch_timeout: 0.05, session_timeout: 60}
server: {host: 0.0.0.0, port: 8001}
"""


PAIR = {"source_lang": "English", "target_lang": "German", "src_code": "en", "tgt_code": "de"}


def show(daybreakd: Daybreakd, path: Path) -> dict[str, Any]:
    result = daybreakd("sessions", "config", "--show", str(path))
    assert result.code == 0, result.err
    file = path.with_suffix(".settings.yaml")
    file.write_text(result.out)
    return load_settings(file).model_dump(mode="json", exclude_unset=True)


def test_the_default_file_is_valid_and_means_settings_that_daybreakd_accepts(daybreakd, tmp_path):
    path = tmp_path / "serving.json"
    assert daybreakd("sessions", "config", "--create-default", str(path)).code == 0
    assert set(json.loads(path.read_text())) == {"ray_cluster", "serving", "languages"}
    assert "English -> Chinese" in daybreakd("sessions", "config", "--validate", str(path)).out
    found = show(daybreakd, path)
    assert found["http"] == {"host": "127.0.0.1", "port": 8000}
    pool = found["pools"]["speech"]
    assert (pool["workload"], pool["groups"]) == ("speech", 1)
    assert pool["sessions"] == {
        "session_timeout_s": 300.0,
        "strategy": "iteration",
        "max_batch_size": 32,
        "batch_timeout_ms": 100.0,
        "latency_multiplier": 1,
        "max_latency_multiplier": 4,
    }


def test_an_existing_file_is_not_overwritten(daybreakd, tmp_path):
    path = tmp_path / "serving.json"
    path.write_text("mine")
    result = daybreakd("sessions", "config", "--create-default", str(path))
    assert (result.code, path.read_text()) == (2, "mine")
    assert "exists already" in result.err


def test_the_schedulers_yaml_means_a_pool_for_each_model(daybreakd, tmp_path):
    path = tmp_path / "scheduler.yaml"
    path.write_text(SCHEDULER)
    found = show(daybreakd, path)
    assert found["http"] == {"host": "0.0.0.0", "port": 8001, "default_pools": {"sessions": "speech"}}
    first, second = found["pools"]["speech"], found["pools"]["speech-2"]
    assert first["sessions"]["max_batch_size"] == second["sessions"]["max_batch_size"] == 8
    assert first["sessions"]["batch_timeout_ms"] == 50.0
    assert first["sessions"]["session_timeout_s"] == 60.0
    assert "model" not in first
    assert second["model"] == "/models/german"
    assert second["sessions"]["latency_multiplier"] == second["sessions"]["max_latency_multiplier"] == 6


def test_devices_of_the_same_model_are_groups_of_one_pool(daybreakd, tmp_path):
    path = tmp_path / "scheduler.yaml"
    path.write_text(yaml.safe_dump({"gpu_language_map": dict.fromkeys((0, 1, 2), "English -> German")}))
    assert show(daybreakd, path)["pools"]["speech"]["groups"] == 3


def test_what_has_no_setting_is_a_comment_of_the_file(daybreakd, tmp_path):
    path = changed(
        daybreakd,
        tmp_path,
        "ray_cluster",
        ray_address="ray://head:10001",
        num_cpus=4,
        dashboard_host="0.0.0.0",
    )
    model = {"model_config": {"model_name": "other"}}
    path = changed(daybreakd, tmp_path, "languages", path, **{"English -> German": PAIR | model})
    path = changed(
        daybreakd,
        tmp_path,
        "serving",
        path,
        cuda_visible_devices="0,1",
        load_balance_strategy="round_robin",
        enable_dynamic_batching=False,
    )
    out = daybreakd("sessions", "config", "--show", str(path)).out
    comments = [line for line in out.splitlines() if line.startswith("# ")]
    for words in (
        "--address ray://head:10001",
        "num_cpus",
        "CUDA_VISIBLE_DEVICES=0,1",
        "round_robin",
        "dashboard_host",
        "(other)",
    ):
        assert any(words in line for line in comments), words
    pools = Settings.model_validate(yaml.safe_load(out)).pools
    assert list(pools) == ["speech"]  # another `model_name` does not make another pool
    pool = pools["speech"]
    assert pool.session_settings.strategy == "single"


def test_a_language_pair_is_added_as_the_readme_of_infinisst_adds_it(daybreakd, tmp_path):
    french = {"source_lang": "English", "target_lang": "French", "src_code": "en", "tgt_code": "fr"}
    model = {"model_config": {"model_path": "/models/en-fr"}}
    path = changed(daybreakd, tmp_path, "languages", **{"English -> French": french | model})
    assert show(daybreakd, path)["pools"]["speech-2"]["model"] == "/models/en-fr"


def test_a_pair_may_be_written_without_spaces(daybreakd, tmp_path):
    path = tmp_path / "scheduler.yaml"
    path.write_text(SCHEDULER.replace("English -> German", "English->German"))
    assert show(daybreakd, path)["pools"]["speech-2"]["model"] == "/models/german"


def test_pools_with_the_same_model_are_noted(daybreakd, tmp_path):
    path = tmp_path / "scheduler.yaml"
    path.write_text(SCHEDULER.replace("state_dict_path: /models/german, ", ""))
    out = daybreakd("sessions", "config", "--validate", str(path)).out
    assert "languages (English -> German): the pool speech has the same model" in out
    assert "it gets their sessions, unless a request names the pool speech-2" in out
    path.write_text(SCHEDULER)
    assert "the same model" not in daybreakd("sessions", "config", "--validate", str(path)).out


def test_the_sessions_of_pools_with_one_model_need_a_name_if_none_is_the_default(daybreakd, tmp_path):
    path = None
    for code, blocks in (("fr", 1), ("es", 2)):
        pair = {"source_lang": "English", "target_lang": code, "src_code": "en", "tgt_code": code}
        model = {"model_config": {"state_dict_path": "/models/two", "latency_multiplier": blocks}}
        path = changed(daybreakd, tmp_path, "languages", path, **{f"English -> {code}": pair | model})
    out = daybreakd("sessions", "config", "--validate", str(path)).out
    assert "languages (English -> es): the pool speech-2 has the same model, so a request" in out
    assert "must name one of the two pools: speech-2 or speech-3" in out


def test_a_file_without_devices_gets_a_group_for_each_model(daybreakd, tmp_path):
    path = tmp_path / "serving.json"
    path.write_text(json.dumps({"languages": {"English -> German": PAIR}}))
    assert show(daybreakd, path)["pools"]["speech"]["groups"] == 1


def test_a_pair_that_the_model_of_the_package_lacks_is_noted(daybreakd, tmp_path):
    french = {"source_lang": "English", "target_lang": "French", "src_code": "en", "tgt_code": "fr"}
    path = changed(daybreakd, tmp_path, "languages", **{"English -> French": french})
    for action in ("--validate", "--show"):
        out = daybreakd("sessions", "config", action, str(path)).out
        assert "languages (English -> French): the small model of the package does not have them" in out
    path = changed(
        daybreakd,
        tmp_path,
        "languages",
        path,
        **{"English -> French": french | {"model_config": {"model_path": "/m"}}},
    )
    assert "does not have them" not in daybreakd("sessions", "config", "--validate", str(path)).out


def changed(
    daybreakd: Daybreakd, folder: Path, part: str, path: Path | None = None, /, **values: Any
) -> Path:
    """Write the default file with other values in one part, or change one part of ``path``."""
    if path is None:
        path = folder / "serving.json"
        daybreakd("sessions", "config", "--create-default", str(path))
    found = json.loads(path.read_text())
    found[part] |= values
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("serving", {"max_batch_size": 33}, "serving.max_batch_size: "),
        ("serving", {"max_batch_size": True}, "serving.max_batch_size: "),
        ("serving", {"port": True}, "serving.port: "),
        ("serving", {"batch_timeout_ms": -1}, "serving.batch_timeout_ms: "),
        ("serving", {"load_balance_strategy": "random"}, "serving.load_balance_strategy: "),
        ("serving", {"gpu_language_map": {"0": "English -> Klingon"}}, "serving.gpu_language_map.0: "),
        ("serving", {"speed": 1}, "serving.speed: "),
        ("ray_cluster", {"num_gpus": -1}, "ray_cluster.num_gpus: "),
        ("languages", {"English -> German": {}}, "languages.English -> German.source_lang: "),
        (
            "languages",
            {"English -> German": {**PAIR, "tgt_code": "fr"}},
            "languages: English -> German.tgt_code: German has the code 'de', not 'fr'",
        ),
        ("serving", {"host": "not a host"}, "http.host: "),
    ],
)
def test_a_wrong_file_names_the_field(daybreakd, tmp_path, part, values, message):
    path = changed(daybreakd, tmp_path, part, **values)
    result = daybreakd("sessions", "config", "--validate", str(path))
    assert result.code == 2
    assert message in result.err


def test_json_may_be_indented_with_tabs(daybreakd, tmp_path):
    """A tab is not allowed in YAML at this place."""
    plain, tabs = tmp_path / "plain.json", tmp_path / "tabs.json"
    plain.write_text('{"gpu_language_map": {"0": "English -> German"}}')
    tabs.write_text('{\n\t"gpu_language_map": {\n\t\t"0":\t"English -> German"\n\t}\n}')
    shown = [daybreakd("sessions", "config", "--show", str(path)) for path in (plain, tabs)]
    assert [result.code for result in shown] == [0, 0]
    assert shown[0].out == shown[1].out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither JSON nor YAML"),
        ("server: !!timestamp soon", "does not fit its YAML tag"),
        ("[" * 5000, "too many levels"),
        ("[]", "no fields"),
        ("{}", "no fields"),
        ("serving: {}", "languages: "),
        ('{"serving": {"port": 1,\n"port": 2}}', "line 2: 'port' is given twice"),
        ('{"languages": {}, "server": {}}', "server: "),
        ("gpu_language_map: {0: German}", "gpu_language_map: 'German' is no language pair"),
        ("gpu_language_map: {0: English -> Klingon}", "gpu_language_map: the language 'Klingon'"),
        ("gpu_language_map: {0: a -> b -> c}", "gpu_language_map: 'a -> b -> c' is no language pair"),
        ("gpu_language_map: {x: English -> German}", "gpu_language_map.x"),
        ("gpu_language_map: {-1: English -> German}", "gpu_language_map.-1"),
        ("gpu_language_map: {true: English -> German}", "not true or false"),
        (
            "gpu_language_map: {0: English -> German}\nmodel_configs: {German: {}}",
            "model_configs: 'German' is no language pair",
        ),
        (
            "gpu_language_map: {0: English -> German}\nmodel_configs: {English -> Klingon: {}}",
            "model_configs: the language 'Klingon'",
        ),
        ("gpu_language_map: {0: a -> b}\nscheduler: {max_batch_size: 0}", "scheduler.max_batch_size: "),
    ],
)
def test_a_file_that_is_neither_form_is_refused(daybreakd, tmp_path, text, message):
    path = tmp_path / "wrong"
    path.write_text(text)
    result = daybreakd("sessions", "config", "--show", str(path))
    assert result.code == 2
    assert message in result.err


def test_exactly_one_action_is_needed(daybreakd, tmp_path):
    assert daybreakd("sessions", "config").code == 2
    path = str(tmp_path / "x")
    result = daybreakd("sessions", "config", "--show", path, "--validate", path)
    assert "exactly one" in result.err
    assert "cannot read" in daybreakd("sessions", "config", "--validate", path).err
