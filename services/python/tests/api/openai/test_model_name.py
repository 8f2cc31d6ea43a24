"""Finding the name of the model in a request, and replacing it."""

from __future__ import annotations

import json

import pytest

from daybreak_server.api.openai.model_name import model_in, with_model

JSON = "application/json"
FORM = "multipart/form-data; boundary=x"


def form(*fields: tuple[str, str]) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    return ("".join(parts) + "--x--\r\n").encode()


def test_json_names_its_model_wherever_the_field_stands() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "model"}], "model": "small/one"}).encode()
    assert model_in(body, JSON, complete=True) == "small/one"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model": 3}', b'{"model"', b"\xff", b'{"model": null}']
)
def test_a_body_that_names_no_model(body: bytes) -> None:
    assert model_in(body, JSON, complete=True) is None


def test_the_beginning_of_a_body_names_a_model_only_if_the_name_is_whole() -> None:
    assert model_in(b'{"model": "small", "messages": [{"ro', JSON, complete=False) == "small"
    assert model_in(b'{"model": "sma', JSON, complete=False) is None
    assert model_in(b'{"messages": [{"content": "a', JSON, complete=False) is None


def test_a_form_names_its_model() -> None:
    body = form(("language", "de"), ("model", "whisper"), ("file", 'name="model"'))
    assert model_in(body, FORM, complete=True) == "whisper"
    assert model_in(form(("file", "x")), FORM, complete=True) is None
    assert model_in(form(("submodel", "x")), FORM, complete=True) is None


def test_the_name_is_replaced_and_nothing_else() -> None:
    body = json.dumps({"messages": ["ä"], "model": "big", "n": 1.5}).encode()
    assert json.loads(with_model(body, JSON, "small")) == {"messages": ["ä"], "model": "small", "n": 1.5}
    assert with_model(form(("model", "big"), ("n", "1")), FORM, "small") == form(
        ("model", "small"), ("n", "1")
    )
