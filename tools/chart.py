"""Makes what the Helm chart repeats: its CRD, values.schema.json and the table of values in its README.

One source each: the definition is that of ``deploy/crd``; schema and table come from ``values.yaml``, where
``# --`` describes a value and ``# @`` is the part of its schema that its default does not tell; what a pool's
``settings`` may be comes from the server's own models. ``--check`` shows what would change, and exits 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drift
import yaml
from pydantic import BaseModel

from daybreak_server.domain.names import API_APPLICATION, POOL_NAME
from daybreak_server.settings.tree import PoolSettings, Settings

CHART = Path(__file__).parent.parent / "deploy" / "helm" / "daybreak"
CRD = Path(__file__).parent.parent / "deploy" / "crd" / "generatorpools.yaml"
BEGIN, END = "<!-- values: made by tools/chart.py -->", "<!-- end of values -->"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
TAKEN = f"under another name than {API_APPLICATION}: so is the application of the API called in Ray Serve"
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}

SHARED: dict[str, Any] = {
    "quantity": {"type": ["string", "integer", "number"], "pattern": QUANTITY},
    "clock": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "strings": {"type": "object", "additionalProperties": {"type": "string"}},
    "objects": {"type": "array", "items": {"type": "object"}},
    "env": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "value": {"type": "string"},
                "valueFrom": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "amounts": {"type": "object", "additionalProperties": {"$ref": "#/$defs/quantity"}},
    "resources": {
        "type": "object",
        "properties": {
            "requests": {"$ref": "#/$defs/amounts"},
            "limits": {"$ref": "#/$defs/amounts"},
            "claims": {"$ref": "#/$defs/objects"},
        },
        "additionalProperties": False,
    },
}


class ChartError(Exception):
    """values.yaml is not as this tool reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value: where it is, its default, what is said about it, and what its comment adds to its schema."""

    path: str
    default: Any
    text: str
    schema: dict[str, Any] | None


def _above(lines: list[str], line: int) -> tuple[str, dict[str, Any] | None]:
    """What the comments right above a line say."""
    schema = None
    for one in reversed(lines[:line]):
        stripped = one.strip()
        if stripped.startswith("# -- "):
            return stripped.removeprefix("# -- "), schema
        if not stripped.startswith("# @ "):
            break
        schema = yaml.safe_load(stripped.removeprefix("# @ "))
    return "", schema


def values(document: str) -> Iterator[Value]:
    """Every value of a values file, in its order. :raises ChartError: for one that nothing is said about."""
    root = yaml.compose(document, Loader=yaml.SafeLoader)
    yield from _walk(root, "", document.splitlines(), yaml.SafeLoader(document))


def _walk(node: Any, path: str, lines: list[str], loader: yaml.SafeLoader) -> Iterator[Value]:
    for key, child in node.value:
        name = f"{path}.{key.value}" if path else key.value
        text, schema = _above(lines, key.start_mark.line)
        if isinstance(child, yaml.MappingNode) and not text:
            yield from _walk(child, name, lines, loader)
        elif not text:
            raise ChartError(f"values.yaml: say with `# --` what {name} is for")
        else:
            default = loader.construct_object(child, deep=True)
            yield Value(path=name, default=default, text=text, schema=schema)


def schema(document: str) -> dict[str, Any]:
    """JSON schema of the values: what is not named is refused."""
    root = _object(description="Values of the chart daybreak.")
    for value in values(document):
        at = root
        *parents, last = value.path.split(".")
        for parent in parents:
            at = at["properties"].setdefault(parent, _object())
        at["properties"][last] = _of(value)
    defaults = root["properties"]["poolDefaults"]
    workload = {"type": "string", "minLength": 1, "description": "Absent: the one of the pool's name."}
    pool = {**defaults, "properties": {"workload": workload, **defaults["properties"]}}
    pools = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": POOL_NAME},
        # Nothing satisfies it. A schema has no words of its own, and Helm says what a `const` would have to be.
        "properties": {API_APPLICATION: {"type": "object", "const": TAKEN}},
        "additionalProperties": {"$ref": "#/$defs/pool"},
    }
    root["properties"]["global"] = {"type": "object", "description": "Helm's own."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **root,
        "$defs": {**SHARED, "pool": pool, "pools": pools, **_settings(Settings), **_settings(PoolSettings)},
    }


def _object(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more, "properties": {}, "additionalProperties": False}


def _of(value: Value) -> dict[str, Any]:
    own = value.schema or {}
    if "$ref" in own:
        return {"description": value.text, "allOf": [own]}
    if "enum" in own:
        return {"description": value.text, **own}
    kind = type(value.default).__name__
    made = {"dict": "object", "list": "array"}.get(kind) or _TYPES.get(kind) or _TYPES["null"]
    return {"description": value.text, "type": made, **own}


def _settings(model: type[BaseModel]) -> dict[str, Any]:
    """The model's own schema and those it refers to: names and bounds. Defaults and words are the server's."""
    made = model.model_json_schema(ref_template="#/$defs/{model}")
    shared = made.pop("$defs", {})
    return {name: _bare(one) for name, one in {**shared, model.__name__: made}.items()}


def _bare(node: Any) -> Any:
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        # Below `properties` are names of settings, whatever they are called.
        name: {key: _bare(own) for key, own in one.items()} if name == "properties" else _bare(one)
        for name, one in node.items()
        if name not in {"title", "default", "format", "description"}
    }


def table(document: str) -> str:
    """The values as a table in Markdown."""
    lines = ["| value | default | |", "|---|---|---|"]
    for value in values(document):
        default = json.dumps(value.default, ensure_ascii=False, separators=(", ", ": "))
        lines.append(f"| `{value.path}` | `{default}` | {value.text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def readme(now: str, document: str) -> str:
    """The README with its table made anew. :raises ChartError: where its marks are not in it."""
    before, begin, rest = now.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ChartError(f"README.md: the marks {BEGIN} and {END} are not in it")
    return f"{before}{BEGIN}\n\n{table(document)}\n\n{END}{after}"


def files() -> dict[Path, str]:
    """What is made: path and text."""
    document = (CHART / "values.yaml").read_text(encoding="utf-8")
    page = CHART / "README.md"
    return {
        CHART / "crds" / "generatorpools.yaml": CRD.read_text(encoding="utf-8"),
        CHART / "values.schema.json": json.dumps(schema(document), indent=1, ensure_ascii=False) + "\n",
        page: readme(page.read_text(encoding="utf-8"), document),
    }


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    return drift.settle(files(), check=check, tool="tools/chart.py")


if __name__ == "__main__":
    sys.exit(main())
