"""Real clients send compressed bodies, byte order marks, null for optional fields, and integers written as 20.0."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import httpx2
import pytest
from api_support import Api, Serving, make_settings
from pydantic import BaseModel, ConfigDict, Field

from daybreak.wire import SubmitRequest
from daybreak_server.api.intake.normalization import Normalizer
from daybreak_server.workloads.echo.spec import EchoParams
from daybreak_server.workloads.video.spec.params import VideoParams
from testkit.valkey import Server

GOOD = b'{"pool": "echo", "input": {"message": "hi"}}'
GZIPPED = gzip.compress(GOOD, mtime=0)
"""Compressed without a time, because the time would appear in the names of tests. These names must be the same in all
workers of pytest-xdist."""
PATHS = ["/v1/tasks", "/v1/tasks:batch", "/v1/estimate", "/generate"]
BODIES = dict(zip(PATHS, [GOOD, b'{"tasks": [' + GOOD + b"]}", GOOD, b'{"prompt": "a boat"}'], strict=True))


@pytest.fixture(scope="module")
def api(valkey_session: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One server for all tests of this module."""
    pools = {
        "echo": {"workload": "echo"},
        "video": {"workload": "video"},
    }
    with Serving(valkey_session, tmp_path_factory.mktemp("bodies"), 0, make_settings(pools=pools)) as started:
        yield started


def post(api: Api, body: bytes, path: str = "/v1/tasks", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.client.post(path, content=body, headers={"Content-Type": "application/json", **named})


def problem(response: httpx2.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return str(response.json()["detail"])


def raw_deflate(body: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(body) + encoder.flush()


def in_two_members(body: bytes) -> bytes:
    return gzip.compress(body[:9]) + gzip.compress(body[9:])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZip", in_two_members),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_a_compressed_body_is_read(
    api: Api, path: str, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """Every route with a body accepts gzip and deflate, the latter with and without a zlib frame."""
    response = post(api, encode(BODIES[path]), path, Content_Encoding=encoding)
    assert response.status_code < 300, response.text
    if path == "/v1/tasks":
        assert response.json()["input"]["message"] == "hi"


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "utf-8"])
def test_an_unsupported_encoding_is_refused_with_the_list_of_supported_ones(api: Api, encoding: str) -> None:
    """The 415 lists the supported encodings in its detail and in the Accept-Encoding header."""
    response = post(api, GOOD, Content_Encoding=encoding)
    assert "gzip, deflate" in problem(response, 415, "unsupported_media_type")
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_decompression_bomb_is_refused_as_too_large(
    api: Api, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """The size limit also applies to the decompressed body, and decompression stops at the limit."""
    bomb = encode(GOOD + b" " * (300 << 20))
    assert len(bomb) < 1 << 20
    problem(post(api, bomb, Content_Encoding=encoding), 413, "too_large")


@pytest.mark.parametrize(
    ("encoding", "body", "why"),
    [
        ("deflate", b"\x03\x00" * 3, "bytes follow its end"),
        ("gzip", gzip.compress(b"", mtime=0) * 100 + GZIPPED, "more than 100 members"),
    ],
    ids=["deflate", "gzip"],
)
def test_a_body_of_many_empty_members_is_refused(api: Api, encoding: str, body: bytes, why: str) -> None:
    """The rest of the body is copied for each member, so a megabyte of empty members would stall the gateway."""
    response = post(api, body, Content_Encoding=encoding)
    assert (response.status_code, response.json()["code"]) == (400, "bad_json")
    assert why in response.json()["detail"]
    assert post(api, gzip.compress(b"", mtime=0) * 99 + GZIPPED, Content_Encoding="gzip").status_code == 202


@pytest.mark.parametrize("body", [b"", GOOD, GZIPPED[:-9], GZIPPED[:20], GZIPPED + b"x"])
def test_a_body_that_is_not_valid_gzip_is_reported(api: Api, body: bytes) -> None:
    """Plain text, truncated data and trailing garbage are not valid gzip."""
    assert "not valid gzip" in problem(post(api, body, Content_Encoding="gzip"), 400, "bad_json")


def test_a_byte_order_mark_is_skipped(api: Api) -> None:
    """PowerShell and Notepad write a byte order mark. A compressed body may also contain one."""
    for path, body in BODIES.items():
        assert post(api, b"\xef\xbb\xbf" + body, path).status_code < 300
    assert post(api, gzip.compress(b"\xef\xbb\xbf" + GOOD), Content_Encoding="gzip").status_code == 202


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (GOOD.decode().encode("utf-16"), "UTF-8"),
        (GOOD.decode().encode("utf-16-le"), "UTF-8"),
        (GOOD.decode().encode("utf-32-be"), "UTF-8"),
        ('{"pool": "écho"}'.encode("latin-1"), "byte 10 is 0xe9"),
        (GZIPPED, "Content-Encoding: gzip"),
        (b'{"pool": "echo", "input": {"step_s": NaN}}', "neither NaN nor Infinity"),
        (b'{"pool": "echo", "input": {"step_s": -Infinity}}', "neither NaN nor Infinity"),
        (b'{"pool": "echo", "input": {},}', "trailing comma"),
        (b'{"pool": "echo", "input": {}, "pool": "clips"}', "key 'pool' twice"),
        (b'{"pool": "echo", "input": {"steps": 1, "\\u0073teps": 2}}', "key 'steps' twice"),
        (b"{'pool': 'echo'}", "key must be a string"),
        (b"pool=echo&steps=2", "begins with 'pool=echo"),
        (b"<task/>", "begins with '<task/>'"),
        (b'{"pool": "echo"} {}', "trailing characters"),
    ],
)
def test_invalid_json_is_explained_in_a_sentence(api: Api, body: bytes, words: str) -> None:
    """Every route with a body explains the error, including the route with a fast path."""
    for path in PATHS:
        detail = problem(post(api, body, path), 400, "bad_json")
        assert words in detail
        assert detail.endswith((".", "{}."))


def optional(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize("name", optional(SubmitRequest))
def test_null_for_an_optional_field_of_a_task_means_absent(api: Api, name: str) -> None:
    """Every optional field may be null, also in a batch and in an estimate."""
    body = json.dumps({"pool": "echo", "input": {}, name: None}).encode()
    absent = post(api, GOOD).json()
    shown = post(api, body)
    assert shown.status_code == 202, shown.text
    assert shown.json().get(name) == absent.get(name)
    assert post(api, body, "/v1/estimate").status_code == 200
    batch = post(api, b'{"tasks": [' + body + b"]}", "/v1/tasks:batch").json()
    assert [result["status"] for result in batch["results"]] == [202]


@pytest.mark.parametrize(
    ("pool", "name"),
    [("echo", name) for name in optional(EchoParams)] + [("video", name) for name in optional(VideoParams)],
)
def test_null_for_an_optional_input_means_absent(api: Api, pool: str, name: str) -> None:
    """In every workload, null gives the same default as a field that is absent."""
    required = {"prompt": "a boat"} if pool == "video" else {}
    without = api.submit(required or {"message": "hello"}, pool=pool)["input"]
    assert api.submit({**(required or {"message": "hello"}), name: None}, pool=pool)["input"] == without
    if pool == "video":
        assert api.client.post("/generate", json={**required, name: None}).json()["input"] == without


@pytest.mark.parametrize("body", [{"pool": None, "input": {}}, {"pool": "echo", "input": None}])
def test_null_for_a_required_field_is_refused(api: Api, body: dict[str, Any]) -> None:
    """An unknown field is refused too, even if it is null."""
    problem(post(api, json.dumps(body).encode()), 422, "invalid_input")
    unknown = {"pool": "echo", "input": {"nonsense": None}}
    assert "nonsense" in problem(post(api, json.dumps(unknown).encode()), 422, "invalid_input")
    assert "prompt" in problem(post(api, b'{"prompt": null}', "/generate"), 422, "invalid_input")


@pytest.mark.parametrize(
    ("pool", "input"),
    [
        ("echo", b'{"steps": 4.0, "artifact_bytes": 2e1, "fail_at": 9.0, "fail_rank": 7.0}'),
        ("video", b'{"prompt": "x", "steps": 20.0, "frames": 1.7e1, "fps": 8.0, "seed": 7.0}'),
    ],
)
def test_a_number_without_a_fraction_is_an_integer(api: Api, pool: str, input: bytes) -> None:
    """Numbers such as 20.0 are integers in the input of every workload and in the fields of the task itself.

    A number with a fraction is refused.
    """
    body = b'{"pool": "%s", "input": %s, "max_strikes": 2.0}' % (pool.encode(), input)
    shown = post(api, body)
    assert shown.status_code == 202, shown.text
    sent = [name for name, value in json.loads(input).items() if isinstance(value, float)]
    assert all(isinstance(shown.json()["input"][name], int) for name in sent)
    assert isinstance(shown.json()["max_strikes"], int)
    for wrong in (b'{"prompt": "x", "steps": 20.5}', b'{"prompt": "x", "steps": 1e300}'):
        wrong_input = wrong if pool == "video" else wrong.replace(b'"prompt": "x", ', b"")
        detail = problem(
            post(api, b'{"pool": "%s", "input": %s}' % (pool.encode(), wrong_input)), 422, "invalid_input"
        )
        assert detail.startswith(("input.steps", "steps"))


def test_two_spellings_of_one_body_match_one_key(api: Api) -> None:
    """An Idempotency-Key may be used again with a body that has null for an absent field and 5.0 for 5."""
    first = post(api, b'{"pool": "echo", "input": {"steps": 5}}', Idempotency_Key="spelled")
    again = post(
        api,
        b'{"pool": "echo", "input": {"steps": 5.0, "fail_at": null}, "priority": null}',
        Idempotency_Key="spelled",
    )
    assert (first.status_code, again.status_code) == (202, 200)


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    length: int
    label: str = "none"
    next: Part | None = None


class Custom(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    parts: list[Part] = []
    named: dict[str, Part] = {}
    either: int | float = 1
    size: int | Literal["auto"] = "auto"
    short: Annotated[int, Field(alias="s")] = 1
    free: Any = None
    must: int | None


def test_normalization_reaches_into_custom_workloads() -> None:
    """Normalization covers nested models, lists, maps, aliases and unions.

    If a field accepts fractions or any value at all, its value stays as it is.
    """
    part = {"length": 2.0, "label": None, "next": {"length": 3.0, "next": None}}
    sent = {
        "parts": [part],
        "named": {"a": part},
        "either": 2.0,
        "size": 3.0,
        "s": 4.0,
        "free": {"deep": [1.0, None]},
        "must": None,
    }
    normalized = Normalizer(Custom)(sent)
    params = Custom.model_validate(normalized)
    assert (params.parts[0].length, params.parts[0].label) == (2, "none")
    assert params.named["a"].next == Part(length=3)
    assert (params.size, params.short, params.must) == (3, 4, None)
    assert isinstance(params.either, float)
    assert params.free == {"deep": [1.0, None]}
    assert part["label"] is None  # The body itself is unchanged.
