"""Models and workers in the client and its command, with a scripted server. The server's own tests use a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daybreak import ArgumentError, AsyncClient, AuthError, Client, ConflictError, NotFoundError, Retry
from daybreak.core.model_routes import model_path

MODEL = {
    "id": "small",
    "created": 1,
    "owned_by": "daybreak",
    "state": "registered",
    "reason": "The first request starts it.",
    "source": "org/small",
    "engine": "vllm",
    "args": {"max_model_len": 10},
    "replicas": 1,
    "min_replicas": 0,
    "wanted": 0,
    "ready": 0,
    "workers": [],
}
QUICK = Retry(first_s=0.001, max_s=0.001)


@pytest.fixture
def client(scripted: Any, no_environment: None) -> Any:
    with Client(scripted.url, retry=QUICK) as client:
        yield client


def test_only_what_the_caller_gives_is_sent(scripted: Any, make: Any, client: Client) -> None:
    """The client leaves the other fields to the server's defaults."""
    scripted.answers = [make.answer(MODEL, 201)]
    assert client.models.register("small", "org/small", args={"max_model_len": 10}).id == "small"
    (seen,) = scripted.seen
    assert (seen.method, seen.path) == ("POST", "/v1/models/register")
    assert seen.json == {"alias": "small", "source": "org/small", "args": {"max_model_len": 10}}
    with pytest.raises(ArgumentError, match=r"args\.x is nan"):
        client.models.register("small", "org/small", args={"x": float("nan")})


def test_a_registration_whose_answer_was_lost_succeeds(scripted: Any, make: Any, client: Client) -> None:
    """The second attempt gets 409, but the registered model is the one that the caller wants."""
    scripted.answers = [make.drop, make.problem(409, "conflict"), make.answer(MODEL)]
    assert client.models.register("small", "org/small", args={"max_model_len": 10}).id == "small"
    assert [seen.method for seen in scripted.seen] == ["POST", "POST", "GET"]


@pytest.mark.parametrize("fields", [{"args": {"max_model_len": 11}}, {"replicas": 2}, {"engine": "test"}])
def test_another_model_of_the_name_is_a_conflict(
    fields: dict[str, Any], scripted: Any, make: Any, client: Client
) -> None:
    """A model with other fields is a conflict even if the first attempt's answer was lost."""
    scripted.answers = [make.drop, make.problem(409, "conflict"), make.answer(MODEL)]
    with pytest.raises(ConflictError):
        client.models.register("small", "org/small", **fields)


def test_a_conflict_at_the_first_attempt_is_one(scripted: Any, make: Any, client: Client) -> None:
    """The first 409 is an error even if the fields are the same, because no earlier attempt can have succeeded."""
    scripted.answers = [make.problem(409, "conflict"), make.answer(MODEL)]
    with pytest.raises(ConflictError):
        client.models.register("small", "org/small")
    assert len(scripted.seen) == 1


def test_an_error_in_the_shape_of_openai_is_an_error_of_the_api(
    scripted: Any, make: Any, client: Client
) -> None:
    error = {"message": "There is no model.", "code": "model_not_found", "type": "x", "param": "model"}
    scripted.answers = [make.answer({"error": error}, 404)]
    with pytest.raises(NotFoundError, match="There is no model") as caught:
        client.models.get("small")
    assert caught.value.code == "model_not_found"


def test_an_alias_is_a_path(scripted: Any, make: Any, client: Client) -> None:
    scripted.answers = [make.answer({"id": "org/small:v1", "deleted": True})]
    client.models.delete("org/small:v1")
    assert scripted.seen[0].path == "/v1/models/org/small:v1"
    assert model_path("a b?c#d") == "/v1/models/a%20b%3Fc%23d"
    for alias in ("", "..", "a/../b", "/a", "a//b", "\udc80"):
        with pytest.raises(ArgumentError):
            model_path(alias)


async def test_the_asyncio_client_sends_the_same(scripted: Any, make: Any, no_environment: None) -> None:
    scripted.answers = [
        make.answer(MODEL, 201),
        make.answer({"data": [MODEL]}),
        make.answer(MODEL),
        make.answer({"id": "small", "deleted": True}),
        make.answer({"workers": []}),
        make.answer(MODEL | {"state": "starting"}),
        make.answer(MODEL | {"state": "ready"}),
    ]
    async with AsyncClient(scripted.url, retry=QUICK) as client:
        assert (await client.models.register("small", "org/small")).id == "small"
        assert [model.id for model in await client.models.list()] == ["small"]
        assert (await client.models.get("small")).source == "org/small"
        await client.models.delete("small")
        assert await client.workers.list() == ()
        assert (await client.models.wait("small")).state == "ready"
    assert [f"{seen.method} {seen.path}" for seen in scripted.seen] == [
        "POST /v1/models/register",
        "GET /v1/models",
        "GET /v1/models/small",
        "DELETE /v1/models/small",
        "GET /v1/workers",
        *["GET /v1/models/small"] * 2,
    ]


def test_the_command_registers_with_all_options(scripted: Any, make: Any, command: Any) -> None:
    scripted.answers = [make.answer(MODEL, 201)]
    code, out, _ = command(
        *("models", "register", "small", "org/small", "--engine", "llama.cpp", "--arg", "ctx_size=10"),
        *("--arg", "flash_attn=true", "--memory", "1.5 GiB", "--gpus", "2", "--min-replicas", "3"),
        *("--target-load", "4", "--idle", "60", "--fallback", "tiny", "--json"),
    )
    assert (code, json.loads(out)["id"]) == (0, "small")
    assert scripted.seen[0].json == {
        "alias": "small",
        "source": "org/small",
        "engine": "llama.cpp",
        "args": {"ctx_size": 10, "flash_attn": True},
        "memory_bytes": 3 << 29,
        "gpus": 2,
        "replicas": 3,
        "min_replicas": 3,
        "target_load": 4.0,
        "idle_s": 60.0,
        "fallback": "tiny",
    }


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((409, "conflict"), 7, "`daybreak models show small` shows it."),
        ((401, "no_key"), 6, "Set DAYBREAK_API_KEY to the workers.token"),
        ((403, "forbidden"), 6, "Set DAYBREAK_API_KEY to the workers.token"),
        ((422, "invalid_input"), 2, "See `daybreak models register --help`."),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    answer: tuple[int, str], code: int, says: str, scripted: Any, make: Any, command: Any
) -> None:
    scripted.answers = [make.problem(*answer)]
    done, out, err = command("models", "register", "small", "org/small")
    assert (done, out, err.count("\n")) == (code, "", 1)
    assert says in err


def test_wrong_options_send_nothing(scripted: Any, command: Any) -> None:
    for options in (["--wait"], ["--memory", "much"], ["--arg", "novalue"]):
        code, _, err = command("models", "register", "small", "org/small", *options)
        assert (code, err.count("\n")) == (2, 1)
    assert scripted.seen == []


def test_waiting_shows_each_change_once(scripted: Any, make: Any, command: Any) -> None:
    placing = MODEL | {"state": "placing", "reason": "No room.", "wake": {"phase": "placing", "eta_s": 4}}
    failed = MODEL | {"state": "failed", "reason": "exit 3"}
    replica = {"alias": "small", "state": "failed", "capacity": 1, "last_lines": ["boom \x1b[31m"]}
    worker = {"id": "w1", "version": "1", "engines": [], "draining": False, "gpus": []}
    worker |= {"memory_bytes": 1, "memory_free_bytes": 1, "models": [replica]}
    scripted.answers = [
        make.answer(MODEL, 201),
        *[make.answer(placing)] * 2,
        make.answer(failed),
        make.answer({"workers": [worker]}),
    ]
    options = ("--min-replicas", "1", "--wait", "--json")
    code, out, err = command("models", "register", "small", "org/small", *options)
    assert (code, json.loads(out)["state"]) == (1, "failed")
    lines = [line.strip() for line in err.splitlines()]
    assert len(lines) == 4
    assert lines[0].endswith("small is placing: No room. (about 4.0 s left)")
    assert lines[1].endswith("small is failed: exit 3")
    assert lines[3] == "boom \\x1b[31m"


def test_pools_are_listed_among_the_models(scripted: Any, make: Any, command: Any) -> None:
    pool = {"id": "zoo", "created": 0, "owned_by": "daybreak", "pool": "zoo"}
    scripted.answers = [make.answer({"data": [MODEL, pool]})]
    rows = ["small\tregistered\t0/0\t-\tThe first request starts it.", "zoo\tpool\t-\t-\t"]
    assert command("models", "list") == (0, "\n".join([*rows, ""]), "")


def test_a_key_without_rights_is_an_auth_error(scripted: Any, make: Any, client: Client) -> None:
    scripted.answers = [make.problem(403, "forbidden")]
    with pytest.raises(AuthError):
        client.models.delete("small")
