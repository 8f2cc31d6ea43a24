"""The page at ``/docs``: plain HTML made from the OpenAPI document, without scripts from other servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")
_ORIGIN = "http://127.0.0.1:8000"


def render(document: dict[str, Any], prefix: str = "") -> str:
    """The page. For each example of a request, it has a curl command and a button that sends the request.

    ``prefix`` is the path below which a proxy serves the API.
    """
    info = document["info"]
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                by_tag.setdefault(item[method]["tags"][0], []).append(
                    _operation(prefix + path, method, item[method])
                )
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in by_tag.items())
    intro = "".join(f"<p>{_text(part)}</p>" for part in info["description"].split("\n\n"))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}: the API</title><style>{_static('docs.css')}</style>"
        f"<h1>{escape(info['title'])}</h1>{intro}"
        f'<p>For programs: <a href="{escape(prefix)}/openapi.json">openapi.json</a>.'
        " <code>{id}</code> is a task's id; “Run” fills in the task that you submitted last.</p>"
        f"{body}<script>{_static('docs.js')}</script></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    examples = "".join(_example(path, method, body) for body in _bodies(operation))
    responses = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{_text(response['description'])}</td></tr>"
        for status, response in sorted(operation["responses"].items())
    )
    parameters = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
        f"<td>{_text(p.get('description', ''))}</td></tr>"
        for p in operation.get("parameters", [])
    )
    return (
        f'<details id="{escape(operation["operationId"])}">'
        f'<summary><span class="m {method}">{method.upper()}</span>'
        f"<code>{escape(path)}</code></summary><p>{_text(operation.get('description', ''))}</p>"
        f"<table>{parameters}</table>{examples}<table>{responses}</table></details>"
    )


def _bodies(operation: dict[str, Any]) -> Iterator[Any]:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        yield None
        return
    for example in content.get("application/json", {}).get("examples", {}).values():
        yield example["value"]


def _example(path: str, method: str, body: Any) -> str:
    data = "" if body is None else json.dumps(body)
    quoted = data.replace("'", "'\\''")
    line = "curl -s" + ("" if method == "get" else f" -X {method.upper()}")
    line += f" '{_ORIGIN}{path}'"
    if body is not None:
        line += f" -H 'Content-Type: application/json' -d '{quoted}'"
    shown = escape(line).replace(_ORIGIN, f'<span class="origin">{_ORIGIN}</span>')
    attributes = f'data-method="{method.upper()}" data-path="{escape(path)}" data-body="{escape(data)}"'
    return f"<pre><code>{shown}</code></pre><button {attributes}>Run</button><pre hidden></pre>"


@cache
def _static(name: str) -> str:
    return (files("daybreak_server.api.task_api") / "static" / name).read_text(encoding="utf-8")


def _text(markdown: str) -> str:
    """HTML from a text in which backquotes mark code."""
    parts = escape(markdown).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
