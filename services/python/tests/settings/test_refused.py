"""Values that would break something later are refused at start. The error says where they are, and shows no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from daybreak_server.settings.rules import redis_url
from daybreak_server.settings.sources import environment_name, leaves, masked
from daybreak_server.settings.tree import Settings, SettingsError, load_settings

SECRET = "hunter2"


def problems(config: Path | None = None, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ=environ)
    assert SECRET not in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:  # a traceback also shows the cause of an error
        assert SECRET not in str(chain)
        chain = chain.__cause__
    return caught.value.problems


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://",
        "redis://host:6379",
        "redis://host:6379/",
        "redis:///5",
        "rediss://user:p%2Fw%40%23@host.example:6380/15",
        "redis://user:p@w@host/0",
        "redis://[::1]:6379/0",
        "redis://[fe80::1]",
        "redis://host?db=3&client_name=daybreak-1",
        "rediss://host?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
        "rediss://host/1?ssl_cert_reqs=none&ssl_check_hostname=False",
        "unix:///run/redis/redis.sock",
        "unix:///run/redis@1.sock?db=2",
        "unix://user:pw@/run/redis.sock",
        "unix:///run/with%20space.sock",
        "redis://host:6379/0\n",
    ],
)
def test_a_redis_url_that_works_is_accepted(url: str) -> None:
    assert load_settings(environ={"DAYBREAK_REDIS__URL": url}).redis.url == url.strip()


@pytest.mark.parametrize(
    "option", ["protocol=3", "decode_responses=True", "encoding=latin1", "socket_timeout=0.001"]
)
@pytest.mark.parametrize("start", ["redis://h:6379/0", "rediss://h", "unix:///run/redis.sock"])
def test_other_options_of_the_url_are_refused_by_name(start: str, option: str) -> None:
    """The message names the option and lists the allowed ones."""
    (message,) = problems(DAYBREAK_REDIS__URL=f"{start}?{option}")
    name = option.partition("=")[0]
    assert f"unknown option {name}; the known options are client_name, db, ssl_ca_certs" in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h?db=one", "option db is not a number"),
        ("redis://h?db=", "option db is not a number"),
        ("redis://h?db", "not option=value"),
        ("redis://h?db=1&db=1", "db twice"),
        ("redis://h/1?db=2", "has the database twice"),
        ("redis://h?client_name=two%20words", "text without spaces"),
        ("redis://h?ssl_cert_reqs=none", "needs TLS; write rediss://"),
        ("unix:///s?ssl_ca_certs=/ca", "needs TLS; write rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "none, optional or required"),
        ("rediss://h?ssl_check_hostname=2", "true or false"),
        ("rediss://h?ssl_certfile=/c", "need each other"),
        ("redis://h:0", "port"),
        ("redis://h:70000", "port"),
        ("redis://h:http", "port"),
        ("redis://h:6379/zero", "database"),
        ("redis://h:6379/0/1", "database"),
        ("redis://::1:6379/0", "IPv6 address in brackets"),
        ("redis://a,b:6379", "host"),
        ("redis://h h:6379", "space"),
        ("redis://h:6379/0#x", "#"),
        ("http://h:6379", "redis://host:6379/0"),
        ("h:6379", "redis://host:6379/0"),
        ("unix://run/redis.sock", "must not have a host"),
        ("unix://", "absolute path"),
        ("unix:run/redis.sock", "absolute path"),
        ("unix:///run/", "absolute path"),
        ("unix:///" + "x" * 120, "bytes; use a shorter one"),
    ],
)
def test_a_redis_url_that_redis_py_would_misread_is_refused(url: str, words: str) -> None:
    (message,) = problems(DAYBREAK_REDIS__URL=url)
    assert message.startswith("redis.url (DAYBREAK_REDIS__URL): ")
    assert words in message


@pytest.mark.parametrize("character", [*list("/?#[]@: \t%"), "/x?#", "1/", "1?", "1?a=", "?protocol="])
@pytest.mark.parametrize(
    "form", ["redis://:{}@h:6379/0", "redis://user:{}@h", "unix://:{}@/run/s.sock", "rediss://u:{}"]
)
def test_an_unescaped_password_is_never_shown(form: str, character: str) -> None:
    """Whatever a password contains, the URL either works or is refused, and no message shows a part of the password."""
    for password in (SECRET + character + SECRET, character + SECRET, SECRET + character):
        url = form.format(password)
        assert SECRET not in masked(url) or "@" not in form
        try:
            load_settings(environ={"DAYBREAK_REDIS__URL": url})
        except SettingsError:
            (message,) = problems(DAYBREAK_REDIS__URL=url)
            assert "%2F" in message or "port" in message or "the known options are" in message, message


@pytest.mark.parametrize("name", ["endpoint_url", "public_endpoint_url"])
@pytest.mark.parametrize(
    "url",
    [
        "minio:9000",
        "minio",
        "//minio:9000",
        "ftp://minio",
        "http://",
        "http://:9000",
        "http://minio:port",
        "http://minio:99999",
        "http://mi nio",
        "http://[::1",
        "http://minio:9000?x=1",
        "http://minio:9000#x",
        f"http://key:{SECRET}@minio:9000",
    ],
)
def test_a_wrong_url_of_an_s3_server_is_refused(name: str, url: str) -> None:
    variable = f"DAYBREAK_ARTIFACTS__S3__{name.upper()}"
    (message,) = problems(**{variable: url, "DAYBREAK_ARTIFACTS__URL": "s3://bucket/x"})
    assert message.startswith(f"artifacts.s3.{name} ({variable}): ")
    assert "http://" in message or "AWS variables" in message


def test_an_invisible_character_in_a_url_is_named() -> None:
    """Such a character often comes from copied text, and no terminal shows it."""
    url = "http://min\u200bio:9000"
    (message,) = problems(DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL=url, DAYBREAK_ARTIFACTS__URL="s3://bucket/x")
    assert r"it contains the unprintable character '\u200b'; remove it" in message


@pytest.mark.parametrize(
    "url",
    ["http://minio:9000", "https://s3.eu-central-1.amazonaws.com", "http://[::1]:9000", "http://h/base/"],
)
def test_the_url_of_an_s3_server_is_accepted(url: str) -> None:
    environ = {"DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL": url, "DAYBREAK_ARTIFACTS__URL": "s3://b"}
    assert load_settings(environ=environ).artifacts.s3.endpoint_url == url


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ARTIFACTS__URL", f"s3://key:{SECRET}@bucket/x", "must not have access keys"),
        ("ARTIFACTS__URL", "s3://minio:9000/bucket", "name of a bucket"),
        ("ARTIFACTS__URL", "s3://[x/y", "cannot be read"),
        ("ARTIFACTS__URL", "file:~nobody-of-this-name/x", "write an absolute path"),
        ("ARTIFACTS__S3__REGION", "eu central", "name of a region"),
        ("POOLS__VIDEO__MODEL", "gs://bucket/wan", "write file:///absolute/folder"),
        ("POOLS__VIDEO__MODEL", f"s3://key:{SECRET}@bucket/wan", "must not have access keys"),
        ("DATA_DIR", "~nobody-of-this-name/x", "write an absolute path"),
        ("MODEL_CACHE", "~nobody-of-this-name/x", "write an absolute path"),
        ("HTTP__HOST", "http://0.0.0.0", "only a name or an address"),
        ("HTTP__HOST", "localhost:8000", "only a name or an address"),
        ("HTTP__HOST", "[::1", "only a name or an address"),
        ("OPERATOR__HOST", "a b", "only a name or an address"),
        ("REDIS__PREFIX", "day{break}", "letters, digits"),
        ("REDIS__SENTINELS", f"redis://:{SECRET}@s1:26379", "write host:port"),
        ("REDIS__SENTINELS", f"user:{SECRET}@s1:26379", "write host:port"),
        ("ARTIFACTS__S3__ENDPOINT_URL", "http://s1:0", "from 1 to 65535"),
        ("REDIS__SENTINELS", "s1:99999", "write host:port"),
        ("HTTP__PORT", "eighty", "whole number"),
        ("POOLS__VIDEO__RETENTION_S", "a week", "must be a number"),
        ("ARTIFACTS__S3__PRESIGN", "perhaps", "true or false"),
        ("POOLS__VIDEO__DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
        ("HTTP", "5", "write a JSON object"),
        ("POOLS", "[1]", "write a JSON object"),
        ("POOLS", '{"video": {"ranks": 1, "ranks": 2}}', "ranks is given twice"),
        ("POOLS__VIDEO__OPTIONS", '{"scale": NaN}', "write a JSON object"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, value: str, words: str) -> None:
    message = "\n".join(problems(**{f"DAYBREAK_{variable}": value}))
    assert f"DAYBREAK_{variable}" in message
    assert words in message


def _numbers() -> list[tuple[str, ...]]:
    """The paths of all settings that are numbers."""
    tree: Any = Settings.model_validate({"tenants": {"t": {}}}).model_dump()
    paths = []
    for path in leaves(Settings, "video", "t"):
        value = tree
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            paths.append(path)
    assert len(paths) > 20
    return paths


@pytest.mark.parametrize("path", _numbers(), ids=".".join)
@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", "-1", "1.0e+300", "1" + "0" * 40, "true", "x", "null"]
)
def test_a_number_without_sense_is_refused(path: tuple[str, ...], value: str, tmp_path: Path) -> None:
    """The value of a numeric setting must be a finite number that is neither negative nor huge."""
    config = tmp_path / "c.yaml"
    text = value
    for part in reversed(path):
        text = f"{{{part}: {text}}}"
    config.write_text(text)
    (message,) = problems(config)
    assert "line 1" in message
    assert ".".join(path) in message or "finite" in message
    if value.strip("-") in {".inf", ".nan"}:
        (message,) = problems(**{environment_name(path): value.replace(".", "")})
        assert re.search("must be a (finite|whole) number", message)
        tree: Any = float(value.replace(".", ""))
        for part in reversed(path):
            tree = {part: tree}
        with pytest.raises(ValidationError, match="finite"):
            Settings.model_validate(tree)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"redis": {"wait_replicas": 1}}, "the embedded Redis has none"),
        (
            {"redis": {"url": "redis://h", "sentinel_password": SECRET}},
            "set sentinels, or remove the password",
        ),
        (
            {"redis": {"url": "rediss://h?ssl_ca_certs=/a", "ca_file": "/b"}},
            "ssl_ca_certs is the same as ca_file",
        ),
        ({"redis": {"url": "unix:///s", "ca_file": "/b"}}, "need TLS"),
        ({"redis": {"url": f"unix://u:{SECRET}@/s", "password_file": "/b"}}, "without a password"),
        (
            {"artifacts": {"s3": {"endpoint_url": "http://h"}}},
            "artifacts.s3.endpoint_url is set, but artifacts.url is a folder",
        ),
        (
            {"artifacts": {"url": "s3://b", "s3": {"presign": False, "public_endpoint_url": "http://h"}}},
            "presign is off",
        ),
        ({"operator": {"liveness_port": 9090}}, "are the same port"),
        ({"tracing": {"endpoint": "http://otel:4318/v1/traces/"}}, "which Daybreak adds; remove it"),
        ({"pools": {"video": {"gpus_per_rank": 1.5}}}, "must be a whole number"),
        ({"pools": {"echo": {"options": {"at": __import__("datetime").date(2026, 1, 2)}}}}, "options.at"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, tree: Any, words: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(tree))
    (message,) = problems(config)
    assert words in message


def test_all_contradictions_of_a_section_are_reported_at_once(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("redis: {sentinel_master: m, ca_file: /ca, wait_replicas: 2}")
    messages = problems(config)
    assert len(messages) == 3
    assert all(
        message.startswith("redis (DAYBREAK_REDIS): ") and message.endswith(f"(in {config}, line 1)")
        for message in messages
    )


def test_two_variables_for_one_setting_are_refused() -> None:
    (message,) = problems(DAYBREAK_HTTP__PORT="1", DAYBREAK_HTTP__port="2")
    assert message == "DAYBREAK_HTTP__port: DAYBREAK_HTTP__PORT is the same setting; unset one of them"


def test_each_message_has_the_value_and_its_place(tmp_path: Path) -> None:
    """The place is a file and a line, or a variable. A long value is truncated."""
    config = tmp_path / "c.yaml"
    config.write_text(f"http:\n  host: h\n  port: {'9' * 1000}\n")
    assert [line[-60:].rpartition("(")[2] for line in problems(config)] == [f"in {config}, line 3)"[-60:]]
    assert len(problems(config)[0]) < 500
    (message,) = problems(config, DAYBREAK_HTTP='{"port": -1}')
    assert message == (
        "http.port (DAYBREAK_HTTP__PORT): must be greater than or equal to 0; it is -1 (from DAYBREAK_HTTP)"
    )


def test_secrets_are_masked_whatever_their_type() -> None:
    assert masked({"sentinel_password": 1234, "other": 5, "api_key": None}) == {
        "sentinel_password": "***",
        "other": 5,
        "api_key": None,
    }
    assert (
        masked("redis://h:6379/0 and http://127.0.0.1:8000/x: no")
        == "redis://h:6379/0 and http://127.0.0.1:8000/x: no"
    )


def test_the_relay_has_the_same_rules_for_a_redis_url() -> None:
    """The server and the SDK's relay must not import each other, so each has a copy of the module `redis_url`."""
    from daybreak.event_relay import redis_url as relay_redis_url

    server, relay = (Path(str(module.__file__)).read_text() for module in (redis_url, relay_redis_url))
    assert server == relay


def test_pydantic_errors_do_not_show_refused_values() -> None:
    """If code builds ``Settings`` directly, the traceback of pydantic's error must not contain a password either."""

    def models(kind: type[BaseModel]) -> list[type[BaseModel]]:
        return [kind, *(model for subclass in kind.__subclasses__() for model in models(subclass))]

    for kind in models(Settings.__mro__[1]):
        assert kind.model_config.get("hide_input_in_errors"), kind
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"redis": {"url": f"http://:{SECRET}@h", "sentinel_password": [SECRET]}})
    assert not re.search(SECRET, str(caught.value))


@pytest.mark.parametrize(
    ("router", "message"),
    [
        ({"max_body_bytes": (256 << 20) + 1}, "the most that a group reads"),
        ({"buffer_bytes": 1000, "max_buffered_bytes": 999}, "too small for one body"),
        ({"max_body_bytes": 1000, "max_buffered_bytes": 999}, "too small for one body"),
        ({"policy": "fastest"}, "least_loaded"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"max_waiting": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_of_the_router_that_refuse_every_request_are_refused(
    router: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"router": router})


def test_a_buffer_that_no_body_can_fill_is_no_contradiction() -> None:
    router = {"buffer_bytes": 1 << 30, "max_body_bytes": 1000, "max_buffered_bytes": 1000}
    assert Settings.model_validate({"router": router}).router.max_body_bytes == 1000
