"""Values that would break something later are refused at start: in a sentence, at their place, without a secret."""

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
    while chain is not None:  # a traceback shows what an error was raised from
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
def test_an_option_of_the_url_that_changes_replies_is_refused_by_name(start: str, option: str) -> None:
    """The option is named, and so are those that there are."""
    (said,) = problems(DAYBREAK_REDIS__URL=f"{start}?{option}")
    assert (
        f"the URL has the option {option.partition('=')[0]}; the options are client_name, db, ssl_ca_certs"
        in said
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h?db=one", "option db is not a number"),
        ("redis://h?db=", "option db is not a number"),
        ("redis://h?db", "not option=value"),
        ("redis://h?db=1&db=1", "db twice"),
        ("redis://h/1?db=2", "names the database twice"),
        ("redis://h?client_name=two%20words", "text without spaces"),
        ("redis://h?ssl_cert_reqs=none", "for TLS: write rediss://"),
        ("unix:///s?ssl_ca_certs=/ca", "for TLS: write rediss://"),
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
        ("unix://run/redis.sock", "names no host"),
        ("unix://", "absolute path"),
        ("unix:run/redis.sock", "absolute path"),
        ("unix:///run/", "absolute path"),
        ("unix:///" + "x" * 120, "bytes; use a shorter one"),
    ],
)
def test_a_redis_url_that_redis_py_would_misread_is_refused(url: str, words: str) -> None:
    (said,) = problems(DAYBREAK_REDIS__URL=url)
    assert said.startswith("redis.url (DAYBREAK_REDIS__URL): ")
    assert words in said


@pytest.mark.parametrize("character", [*list("/?#[]@: \t%"), "/x?#", "1/", "1?", "1?a=", "?protocol="])
@pytest.mark.parametrize(
    "form", ["redis://:{}@h:6379/0", "redis://user:{}@h", "unix://:{}@/run/s.sock", "rediss://u:{}"]
)
def test_an_unescaped_password_is_never_shown(form: str, character: str) -> None:
    """Whatever is in a password: the URL works, or is refused without a piece of it."""
    for password in (SECRET + character + SECRET, character + SECRET, SECRET + character):
        url = form.format(password)
        assert SECRET not in masked(url) or "@" not in form
        try:
            load_settings(environ={"DAYBREAK_REDIS__URL": url})
        except SettingsError:
            (said,) = problems(DAYBREAK_REDIS__URL=url)
            assert "%2F" in said or "port" in said or "the options are" in said, said


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
def test_the_address_of_an_s3_server_is_http_host_port(name: str, url: str) -> None:
    variable = f"DAYBREAK_ARTIFACTS__S3__{name.upper()}"
    (said,) = problems(**{variable: url, "DAYBREAK_ARTIFACTS__URL": "s3://bucket/x"})
    assert said.startswith(f"artifacts.s3.{name} ({variable}): ")
    assert "http://" in said or "AWS variables" in said


@pytest.mark.parametrize(
    "url",
    ["http://minio:9000", "https://s3.eu-central-1.amazonaws.com", "http://[::1]:9000", "http://h/base/"],
)
def test_an_s3_server_is_found_by_its_url(url: str) -> None:
    environ = {"DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL": url, "DAYBREAK_ARTIFACTS__URL": "s3://b"}
    assert load_settings(environ=environ).artifacts.s3.endpoint_url == url


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ARTIFACTS__URL", f"s3://key:{SECRET}@bucket/x", "access keys are no part"),
        ("ARTIFACTS__URL", "s3://minio:9000/bucket", "name of a bucket"),
        ("ARTIFACTS__URL", "s3://[x/y", "cannot be read"),
        ("ARTIFACTS__URL", "file:~nobody-of-this-name/x", "write an absolute path"),
        ("ARTIFACTS__S3__REGION", "eu central", "name of a region"),
        ("POOLS__VIDEO__MODEL", "gs://bucket/wan", "write file:///absolute/folder"),
        ("POOLS__VIDEO__MODEL", f"s3://key:{SECRET}@bucket/wan", "access keys are no part"),
        ("DATA_DIR", "~nobody-of-this-name/x", "write an absolute path"),
        ("MODEL_CACHE", "~nobody-of-this-name/x", "write an absolute path"),
        ("HTTP__HOST", "http://0.0.0.0", "a name or an address alone"),
        ("HTTP__HOST", "localhost:8000", "a name or an address alone"),
        ("HTTP__HOST", "[::1]", "a name or an address alone"),
        ("OPERATOR__HOST", "a b", "a name or an address alone"),
        ("REDIS__PREFIX", "day{break}", "letters, digits"),
        ("REDIS__SENTINELS", f"redis://:{SECRET}@s1:26379", "write host:port"),
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
    said = "\n".join(problems(**{f"DAYBREAK_{variable}": value}))
    assert f"DAYBREAK_{variable}" in said
    assert words in said


def _numbers() -> list[tuple[str, ...]]:
    """The paths of all settings that are numbers."""
    tree: Any = Settings.model_validate({"tenants": {"t": {}}}).model_dump()
    found = []
    for path in leaves(Settings, "video", "t"):
        value = tree
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(path)
    assert len(found) > 20
    return found


@pytest.mark.parametrize("path", _numbers(), ids=".".join)
@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", "-1", "1.0e+300", "1" + "0" * 40, "true", "x", "null"]
)
def test_a_number_that_would_overflow_later_is_refused(
    path: tuple[str, ...], value: str, tmp_path: Path
) -> None:
    """Infinite, not a number, negative, huge, or no number at all: for every number that there is."""
    config = tmp_path / "c.yaml"
    text = value
    for part in reversed(path):
        text = f"{{{part}: {text}}}"
    config.write_text(text)
    (said,) = problems(config)
    assert "line 1" in said
    assert ".".join(path) in said or "finite" in said
    if value.strip("-") in {".inf", ".nan"}:
        (said,) = problems(**{environment_name(path): value.replace(".", "")})
        assert re.search("must be a (finite|whole) number", said)
        tree: Any = float(value.replace(".", ""))
        for part in reversed(path):
            tree = {part: tree}
        with pytest.raises(ValidationError, match="finite"):
            Settings.model_validate(tree)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"redis": {"wait_replicas": 1}}, "the embedded one has none"),
        ({"redis": {"url": "redis://h", "sentinel_password": SECRET}}, "name them in sentinels"),
        (
            {"redis": {"url": "rediss://h?ssl_ca_certs=/a", "ca_file": "/b"}},
            "ssl_ca_certs is the same as ca_file",
        ),
        ({"redis": {"url": "unix:///s", "ca_file": "/b"}}, "for TLS"),
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
        ({"pools": {"video": {"gpus_per_rank": 1.5}}}, "must be a whole number"),
        ({"pools": {"echo": {"options": {"at": __import__("datetime").date(2026, 1, 2)}}}}, "options.at"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, tree: Any, words: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(tree))
    (said,) = problems(config)
    assert words in said


def test_all_contradictions_of_a_group_are_said_at_once(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("redis: {sentinel_master: m, ca_file: /ca, wait_replicas: 2}")
    said = problems(config)
    assert len(said) == 3
    assert all(
        line.startswith("redis (DAYBREAK_REDIS): ") and line.endswith(f"(in {config}, line 1)")
        for line in said
    )


def test_two_variables_for_one_setting_are_refused() -> None:
    (said,) = problems(DAYBREAK_HTTP__PORT="1", DAYBREAK_HTTP__port="2")
    assert said == "DAYBREAK_HTTP__port: DAYBREAK_HTTP__PORT is the same setting; unset one of them"


def test_each_refusal_is_one_sentence_with_its_place(tmp_path: Path) -> None:
    """File and line, or the variable, and what was given; a value that is long is cut."""
    config = tmp_path / "c.yaml"
    config.write_text(f"http:\n  host: h\n  port: {'9' * 1000}\n")
    assert [line[-60:].rpartition("(")[2] for line in problems(config)] == [f"in {config}, line 3)"[-60:]]
    assert len(problems(config)[0]) < 500
    (said,) = problems(config, DAYBREAK_HTTP='{"port": -1}')
    assert said == (
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


def test_the_relay_has_the_same_rules_of_a_redis_url() -> None:
    """The server and the SDK may not import each other, so each has the file."""
    from daybreak.relay import redis_url as of_the_relay

    ours, theirs = (Path(str(one.__file__)).read_text() for one in (redis_url, of_the_relay))
    assert ours == theirs


def test_no_group_of_settings_shows_what_it_refuses() -> None:
    """A traceback of pydantic's error must not hold a password either, whoever builds the tree."""

    def groups(kind: type[BaseModel]) -> list[type[BaseModel]]:
        return [kind, *(more for one in kind.__subclasses__() for more in groups(one))]

    for kind in groups(Settings.__mro__[1]):
        assert kind.model_config.get("hide_input_in_errors"), kind
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"redis": {"url": f"http://:{SECRET}@h", "sentinel_password": [SECRET]}})
    assert not re.search(SECRET, str(caught.value))
