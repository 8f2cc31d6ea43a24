"""Where the settings come from, which values are refused and how, and which values are masked."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from daybreak_server.settings.sources import environment_name, leaves, masked
from daybreak_server.settings.tree import (
    ArtifactSettings,
    PoolSettings,
    RedisSettings,
    Settings,
    SettingsError,
    load_settings,
)


def problems(config: Path | None = None, **environ: str) -> str:
    """The messages about these settings, one per line."""
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ=environ)
    return "\n".join(caught.value.problems)


@pytest.fixture
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory for one test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_for_one_machine(working_dir: Path) -> None:
    """Without any setting there is one video pool, an embedded Valkey, and files in the working directory."""
    settings = load_settings(environ={})
    assert settings == Settings()
    assert settings.redis.url is None
    assert list(settings.pools) == ["video"]
    assert settings.data_dir == working_dir / ".daybreak"
    assert settings.artifacts.url == (working_dir / ".daybreak" / "artifacts").as_uri()


def test_every_variable_of_the_wire_page_exists() -> None:
    """Every variable that docs/wire.md lists is read, under the name that the page gives."""
    settings = load_settings(
        environ={
            "DAYBREAK_REDIS__URL": "rediss://:pw@redis:6380/1",
            "DAYBREAK_ARTIFACTS__URL": "s3://bucket/prefix/",
            "DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL": "http://minio:9000",
            "DAYBREAK_HTTP__HOST": "0.0.0.0",
            "DAYBREAK_HTTP__PORT": "9000",
            "DAYBREAK_POOLS__VIDEO__WORKLOAD": "video",
            "DAYBREAK_POOLS__VIDEO__MODEL": "/models/wan",
            "DAYBREAK_POOLS__VIDEO__RANKS": "2",
            "DAYBREAK_POOLS__VIDEO__GROUPS": "3",
            "DAYBREAK_POOLS__VIDEO__RETENTION_S": "60",
            "DAYBREAK_URL": "http://the-client.example",
            "DAYBREAK_API_KEY": "the-client's",
            "PATH": "/bin",
        }
    )
    assert settings.redis.url == "rediss://:pw@redis:6380/1"
    assert settings.artifacts.url == "s3://bucket/prefix"
    assert settings.artifacts.s3.endpoint_url == "http://minio:9000"
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", 9000)
    assert settings.pools["video"].model_dump(
        include={"workload", "model", "ranks", "groups", "retention_s"}
    ) == {
        "workload": "video",
        "model": "/models/wan",
        "ranks": 2,
        "groups": 3,
        "retention_s": 60,
    }


def test_every_setting_can_be_a_variable() -> None:
    """Each setting is read from its variable. The test gives each variable the default value of its setting."""
    tree: Any = Settings(pools={"video": PoolSettings(model="/m")}, tenants={"a": {"weight": 2}}).model_dump(
        mode="json"
    )
    environ = {}
    for path in leaves(Settings, "video", "a"):
        value = tree
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            environ[environment_name(path)] = "{}" if value == {} else str(value)
    assert len(environ) > 25
    assert load_settings(environ=environ).model_dump(mode="json") == tree


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """Variables change single settings of the file's tree, and nothing else."""
    config = tmp_path / "daybreak.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "http": {"port": 1234, "host": "::1"},
                "pools": {"echo": {"ranks": 2}, "video": {"groups": 0, "options": {"dtype": "bf16"}}},
                "tenants": {"Big One": {"weight": 3}},
            }
        )
    )
    settings = load_settings(
        config, environ={"DAYBREAK_HTTP__PORT": "99", "DAYBREAK_POOLS__ECHO__GROUPS": "5"}
    )
    assert (settings.http.port, settings.http.host) == (99, "::1")
    assert (settings.pools["echo"].ranks, settings.pools["echo"].groups) == (2, 5)
    assert settings.pools["video"].options == {"dtype": "bf16"}
    assert settings.tenants["Big One"].weight == 3


def test_a_variable_may_name_the_config_file(tmp_path: Path) -> None:
    """Ray's processes have no option for the file. In commands that have one, the option overrides the variable."""
    for port in (1001, 1002):
        (tmp_path / f"{port}.yaml").write_text(f"http: {{port: {port}}}\n")
    named = {"DAYBREAK_CONFIG": str(tmp_path / "1001.yaml")}
    assert load_settings(environ=named).http.port == 1001
    assert load_settings(tmp_path / "1002.yaml", environ=named).http.port == 1002
    assert load_settings(environ={**named, "DAYBREAK_HTTP__PORT": "7"}).http.port == 7
    assert load_settings(environ={"DAYBREAK_CONFIG": ""}) == Settings()
    assert "none.yaml: cannot be read" in problems(DAYBREAK_CONFIG=str(tmp_path / "none.yaml"))


def test_a_pool_without_a_workload_serves_the_workload_of_its_name(tmp_path: Path) -> None:
    """Naming a pool also removes the default pool."""
    settings = load_settings(
        environ={
            "DAYBREAK_POOLS__ECHO__RANKS": "1",
            "DAYBREAK_POOLS__FAST_VIDEO__WORKLOAD": "video",
            "DAYBREAK_POOLS__FAST_VIDEO__OPTIONS__DTYPE": "bf16",
            "DAYBREAK_POOLS__FAST_VIDEO__OPTIONS__TILING": "true",
        }
    )
    assert {name: pool.workload for name, pool in settings.pools.items()} == {
        "echo": "echo",
        "fast-video": "video",
    }
    assert settings.pools["fast-video"].options == {"dtype": "bf16", "tiling": True}


def test_a_section_may_be_json() -> None:
    """A variable of a setting overrides the JSON of its section."""
    settings = load_settings(
        environ={"DAYBREAK_POOLS": '{"echo": {"ranks": 2, "groups": 2}}', "DAYBREAK_POOLS__ECHO__RANKS": "3"}
    )
    assert (settings.pools["echo"].ranks, settings.pools["echo"].groups) == (3, 2)
    assert "DAYBREAK_POOLS: write a JSON object" in problems(DAYBREAK_POOLS="echo")


def test_an_empty_variable_counts_as_unset() -> None:
    """A template may leave a variable empty. The setting then keeps its default."""
    empty = {"DAYBREAK_REDIS__URL": "", "DAYBREAK_HTTP__PORT": "", "DAYBREAK_NOT_THERE": ""}
    assert load_settings(environ=empty) == Settings()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("DAYBREAK_REDIS_URL", "DAYBREAK_REDIS__URL"),
        ("DAYBREAK_PORT", "DAYBREAK_HTTP__PORT"),
        ("DAYBREAK_HTTP__PROT", "DAYBREAK_HTTP__PORT"),
        ("DAYBREAK_POOLS__VIDEO__RANK", "DAYBREAK_POOLS__VIDEO__RANKS"),
        ("DAYBREAK_POOLS__MY_POOL__MODLE", "DAYBREAK_POOLS__MY_POOL__MODEL"),
        ("DAYBREAK_POOL__VIDEO__RANKS", "DAYBREAK_POOLS__VIDEO__RANKS"),
        ("DAYBREAK_DATADIR", "DAYBREAK_DATA_DIR"),
        ("DAYBREAK_S3_ENDPOINT_URL", "DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL"),
        ("DAYBREAK_HTTP__PORT__X", "DAYBREAK_HTTP__PORT"),
        ("DAYBREAK_HTTP__", "DAYBREAK_HTTP__"),
        ("DAYBREAK_", "DAYBREAK_"),
    ],
)
def test_unknown_names_are_errors_that_name_the_closest(wrong: str, right: str) -> None:
    """A misspelt variable is never ignored, and the message suggests the right name."""
    message = problems(**{wrong: "1"})
    assert message.startswith(f"{wrong}: there is no such setting; did you mean {right}")


def test_variables_that_kubernetes_adds_are_ignored() -> None:
    """Variables for a Service named daybreak or daybreak-gateway are not settings."""
    environ = {
        "DAYBREAK_SERVICE_HOST": "10.0.0.1",
        "DAYBREAK_SERVICE_PORT": "80",
        "DAYBREAK_SERVICE_PORT_HTTP": "80",
        "DAYBREAK_PORT": "tcp://10.0.0.1:80",
        "DAYBREAK_PORT_80_TCP": "tcp://10.0.0.1:80",
        "DAYBREAK_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "DAYBREAK_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "DAYBREAK_GATEWAY_PORT_80_TCP_PROTO": "tcp",
        "DAYBREAK_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environ=environ) == Settings()


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """One list has all problems with names, with values and with the file, and says where each one is."""
    config = tmp_path / "c.yaml"
    config.write_text("http: {prot: 1, host: h}\npools: {video: {ranks: 0}}\nredis: {url: 'http://u:pw@x'}\n")
    lines = problems(config, DAYBREAK_HTTP__PORT="99999", DAYBREAK_NAME="x").splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("DAYBREAK_NAME: there is no such setting")
    assert any(
        line.startswith("http.prot: there is no such setting; did you mean http.port?") for line in lines
    )
    assert any(line.startswith("pools.video.ranks (DAYBREAK_POOLS__VIDEO__RANKS): ") for line in lines)
    assert any(line.startswith("http.port (DAYBREAK_HTTP__PORT): ") and "'99999'" in line for line in lines)
    assert any("write redis://host:6379/0" in line and "http://u:***@x" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read"),
        ("[1, 2]", "it must be a mapping of settings, not a list"),
        ("3", "mapping"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    message = problems(config)
    assert words in message
    assert str(config) in message
    assert "cannot be read" in problems(tmp_path / "none.yaml")
    config.write_text("# nothing but words\n")
    assert load_settings(config, environ={}) == Settings()


@pytest.mark.parametrize("name", ["Video", "1video", "a" * 32, "vi deo", "-x"])
def test_a_pool_name_that_does_not_fit_into_keys_ids_and_urls_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Settings(pools={name: PoolSettings()})


def test_a_workload_gets_its_options_and_its_model() -> None:
    """The ranks, the API's limits and the checks of `doctor` all get the same options."""
    pool = PoolSettings(options={"dtype": "bfloat16"})
    assert pool.workload_options == {"dtype": "bfloat16"}
    with_model = pool.model_copy(update={"model": "/models/wan"})
    assert with_model.workload_options == {"dtype": "bfloat16", "model": "/models/wan"}
    assert pool.options == {"dtype": "bfloat16"}, "the settings changed"


def test_folders_become_absolute(working_dir: Path) -> None:
    """Building the settings resolves relative folders and `~`."""
    settings = load_settings(
        environ={
            "DAYBREAK_DATA_DIR": "data",
            "DAYBREAK_POOLS__VIDEO__MODEL": "models/wan",
        }
    )
    assert settings.data_dir == working_dir / "data"
    assert settings.artifacts.url == (working_dir / "data" / "artifacts").as_uri()
    assert settings.pools["video"].model == str(working_dir / "models/wan")
    assert ArtifactSettings(url="file:a b/c").url == (working_dir / "a b" / "c").as_uri()
    assert load_settings(environ={"DAYBREAK_DATA_DIR": "~/d"}).data_dir == Path("~/d").expanduser()
    other = load_settings(environ={"DAYBREAK_DATA_DIR": "d", "DAYBREAK_ARTIFACTS__URL": "file:///x"})
    assert other.artifacts.url == "file:///x"


@pytest.mark.parametrize("url", ["file:", "file://host/x", "s3://", "s3:/x", "gs://x", "folder", "/folder"])
def test_a_wrong_url_of_the_artifact_storage_is_refused_with_examples(url: str) -> None:
    assert "write file:///absolute/folder" in problems(DAYBREAK_ARTIFACTS__URL=url)


def test_settings_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `load_settings` reads the environment. Settings that code builds have only the values in the code."""
    monkeypatch.setenv("DAYBREAK_HTTP__PORT", "1")
    monkeypatch.setenv("DAYBREAK_NONSENSE", "1")
    assert Settings().http.port == 8000
    with pytest.raises(SettingsError, match="DAYBREAK_NONSENSE"):
        load_settings()


def test_settings_survive_pickle_and_json_and_are_frozen(working_dir: Path) -> None:
    """Ray pickles settings, and child processes get them as JSON."""
    settings = Settings(
        data_dir=Path("d"), redis=RedisSettings(url="redis://x"), pools={"echo": PoolSettings()}
    )
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1  # type: ignore[misc]


def test_secrets_are_masked() -> None:
    """Passwords in URLs and the values of names such as `api_key` are masked. The value of `tokenizer` is not."""
    tree = {
        "url": "redis://user:pw@h:1/0?password=x&db=1",
        "urls": ["rediss://:p%40w@h"],
        "presigned": "https://s3/b/k?X-Amz-Credential=AKIA%2F1&X-Amz-Date=2&X-Amz-Signature=0a1b&versionId=3",
        "hf_token": "t",
        "api_key": "k",
        "tokenizer": "fast",
        "keys": 3,
        "plain": "redis://h:6379",
    }
    assert masked(tree) == {
        "url": "redis://user:***@h:1/0?password=***&db=1",
        "urls": ["rediss://:***@h"],
        "presigned": "https://s3/b/k?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=***&versionId=3",
        "hf_token": "***",
        "api_key": "***",
        "tokenizer": "fast",
        "keys": 3,
        "plain": "redis://h:6379",
    }


def test_sentinels_are_written_with_commas_or_as_a_list(tmp_path: Path) -> None:
    """Variables, files and code accept both forms. The port is optional."""
    expected = ("a:26379", "b:5000", "[::1]:26379")
    environ = {
        "DAYBREAK_REDIS__URL": "redis://:pw@master/0",
        "DAYBREAK_REDIS__SENTINEL_MASTER": "mymaster",
        "DAYBREAK_REDIS__SENTINELS": "a, b:5000,[::1]",
    }
    settings = load_settings(environ=environ)
    assert settings.redis.sentinels == expected
    file = tmp_path / "daybreak.yaml"
    file.write_text(yaml.safe_dump({"redis": settings.redis.model_dump(mode="json")}))
    assert load_settings(file, environ={}).redis == settings.redis


@pytest.mark.parametrize(
    ("redis", "words"),
    [
        ({"sentinels": "a", "url": "redis://a"}, "sentinel_master"),
        ({"sentinels": "a", "sentinel_master": "m"}, "redis://user:password@master/0"),
        ({"sentinels": "a", "sentinel_master": "m", "url": "unix:///a"}, "cannot be a unix:// socket"),
        ({"sentinels": "redis://a:1", "sentinel_master": "m", "url": "redis://a"}, "write host:port"),
        ({"sentinels": 5}, "commas between several"),
        ({"sentinel_master": "m", "url": "redis://a"}, "needs the addresses"),
        ({"password_file": "/p", "url": "redis://u:p@a"}, "needs a url without a password"),
        ({"sentinel_password_file": "/p", "sentinel_password": "p"}, "are both set"),
        ({"ca_file": "/ca.crt", "url": "redis://a"}, "need TLS; write rediss://"),
        ({"cert_file": "/our.crt", "url": "rediss://a"}, "need each other"),
    ],
)
def test_contradictory_settings_of_redis_are_refused(tmp_path: Path, redis: object, words: str) -> None:
    file = tmp_path / "daybreak.yaml"
    file.write_text(yaml.safe_dump({"redis": redis}))
    assert words in problems(file)


def test_a_model_is_a_folder_or_on_s3(working_dir: Path) -> None:
    """A folder becomes absolute, an S3 prefix loses only its last slash, and the cache is in the data folder."""

    def model(place: str) -> str | None:
        return Settings.model_validate({"pools": {"video": {"model": place}}}).pools["video"].model

    assert model("models/wan") == str(working_dir / "models" / "wan")
    assert model("file:///models/a%20b") == "/models/a b"
    assert model("s3://bucket/wan/") == "s3://bucket/wan"
    assert Settings.model_validate({"data_dir": "/data"}).model_cache == Path("/data/models")
    settings = Settings()
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DAYBREAK_HTTP__HOST", "http://127.0.0.1", "only a name or an address"),
        ("DAYBREAK_HTTP__HOST", "127.0.0.1:80", "only a name or an address"),
        ("DAYBREAK_HTTP__HOST", "::g", "only a name or an address"),
        ("DAYBREAK_OPERATOR__HOST", "[::1]:80", "only a name or an address"),
        ("DAYBREAK_REDIS__URL", "redis://::1:6379", "put an IPv6 address in brackets"),
        ("DAYBREAK_REDIS__SENTINELS", "a,::1:26379", "write an IPv6 address in brackets"),
        ("DAYBREAK_REDIS__SENTINELS", "fe80::1", "write an IPv6 address in brackets"),
    ],
)
def test_an_ambiguous_ipv6_address_is_refused(variable: str, value: str, words: str) -> None:
    """An ambiguous address is never read as another host with another port."""
    assert words in problems(**{variable: value})


def test_an_ipv6_host_may_have_brackets(tmp_path: Path) -> None:
    assert load_settings(environ={"DAYBREAK_HTTP__HOST": "[::1]"}).http.host == "::1"
