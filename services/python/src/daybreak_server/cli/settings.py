"""The settings as a person reads them: on the terminal, as JSON, and as the page docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from daybreak_server.settings.sources import environment_name, masked
from daybreak_server.settings.tree import Settings

_KINDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "folder"}


_PREAMBLE = """\
# Settings

<!-- Made by tools/reference.py from daybreak_server.settings.tree; do not edit. -->

One tree, from a YAML file (`daybreakd --config FILE`, or the one that `DAYBREAK_CONFIG` names) and the
environment, which wins. A variable's name is the setting's path behind `DAYBREAK_`, with `__` between the
parts: `DAYBREAK_POOLS__VIDEO__RANKS=2` is

```yaml
pools:
  video:
    ranks: 2
```

An unknown `DAYBREAK_…` name is an error; an empty variable counts as absent. Groups and `options` may be
given whole, as JSON: `DAYBREAK_POOLS='{"video": {"ranks": 2}}'`. In a variable, a pool's `-` is written `_`.
Durations end in `_s` and are seconds; sizes end in `_bytes`. Relative folders start at the working directory.
All settings are checked before anything is started: a value that something later could not use (infinite, negative, far
too large, an address that names nothing), settings that contradict each other, or a key that the file has twice ends a
command with exit code 2 and a line that says where it is and what to write. No line shows a password.
`daybreakd settings` shows the values that are in force. The client reads `DAYBREAK_URL` and
`DAYBREAK_API_KEY` only. A Redis's password is part of its URL; S3's credentials are the usual AWS
variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting. ``default`` and ``value`` are JSON values without passwords."""

    name: str
    variable: str
    type: str
    default: Any
    value: Any
    changed: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The settings of one group, with what the group is for."""

    name: str
    title: str
    rows: tuple[Row, ...]


def sections(settings: Settings) -> list[Section]:
    """All settings in the order of the tree: a section for each group, pool and tenant that there is."""
    values = settings.model_dump(mode="json")
    unchanged = {
        **Settings(data_dir=settings.data_dir).model_dump(mode="json"),
        "data_dir": Settings().model_dump(mode="json")["data_dir"],
    }
    return list(_sections(Settings, (), values, unchanged))


def as_object(settings: Settings) -> dict[str, Any]:
    """For programs: by name, with everything that is known of a setting."""
    rows = (row for section in sections(settings) for row in section.rows)
    return {row.name: {key: value for key, value in asdict(row).items() if key != "name"} for row in rows}


def as_text(settings: Settings) -> str:
    """For a terminal of 80 columns or more. ``*`` marks what is not at its default."""
    lines: list[str] = []
    for section in sections(settings):
        lines += [f"{section.name or 'daybreak'}: {section.title}"]
        for row in section.rows:
            mark = "*" if row.changed else " "
            lines += [
                f"{mark} {row.name} = {_shown(row.value)}",
                f"      {row.variable} · {row.type} · default {_shown(row.default)}",
                f"      {row.description}",
            ]
        lines.append("")
    return "\n".join((*lines, "* is not at its default. The same in YAML: daybreakd up --config FILE"))


def as_markdown() -> str:
    """The page docs/settings.md, from the tree alone: the same on every machine."""
    lines = [_PREAMBLE]
    example: dict[str, Any] = {"pools": {"<pool>": {}}, "tenants": {"<tenant>": {}}}
    for section in _sections(Settings, (), example, example):
        lines += ["", f"## {_heading(section)}", "", section.title, ""]
        lines += ["| setting | variable | type | default | meaning |", "|---|---|---|---|---|"]
        for row in section.rows:
            kind, meaning = row.type.replace("|", "\\|"), row.description.replace("|", "\\|")
            lines.append(f"| `{row.name}` | `{row.variable}` | {kind} | {_code(row.default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _sections(
    kind: type[BaseModel], at: tuple[str, ...], values: Mapping[str, Any], unchanged: Mapping[str, Any]
) -> Iterator[Section]:
    rows: list[Row] = []
    below: list[Section] = []
    for name, field in kind.model_fields.items():
        path = (*at, name)
        inner = _group_in(field.annotation)
        if inner is None:
            rows.append(_row(path, field, values.get(name), unchanged.get(name)))
        elif inner[1]:
            for key, one in values.get(name, {}).items():
                first, *more = _sections(inner[0], (*path, key), one, _defaults(inner[0]) if one else {})
                below += (replace(first, title=f"{first.title} {field.description or ''}"), *more)
        else:
            below += _sections(inner[0], path, values.get(name, {}), unchanged.get(name, {}))
    title = (kind.__doc__ or "").strip().splitlines()[0]
    if rows:
        yield Section(name=".".join(at), title=title, rows=tuple(rows))
    yield from below


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return kind().model_dump(mode="json")


def _row(path: tuple[str, ...], field: FieldInfo, value: Any, unchanged: Any) -> Row:
    default = field.get_default(call_default_factory=True, validated_data={})
    default = str(default) if isinstance(default, Path) else default
    return Row(
        name=".".join(path),
        variable=environment_name(path),
        type=_type_name(field.annotation),
        default=masked(default, path[-1]),
        value=masked(value, path[-1]),
        changed=value != unchanged,
        description=field.description or "",
    )


def _group_in(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The group that a field holds, and whether it holds many of them by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner, True
    return None


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(one) for one in get_args(annotation))
    if origin is dict:
        return "JSON object"
    if origin is tuple:
        return "list"
    options = [one for one in get_args(annotation) if one is not NoneType]
    if options:
        return " | ".join(_type_name(one) for one in options)
    return _KINDS.get(annotation, "text")


def _heading(section: Section) -> str:
    return f"`{section.name}`" if section.name else "Daybreak"


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _code(value: Any) -> str:
    return "" if value is None else f"`{_shown(value)}`"
