"""Shows the settings to people: on the terminal, as JSON, and as the page docs/settings.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from daybreak_server.settings.section import ComputedDefault
from daybreak_server.settings.sources import environment_name, masked
from daybreak_server.settings.tree import Settings

_CONTAINERS: dict[Any, str] = {dict: "JSON object", tuple: "list"}
_KINDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}


_PREAMBLE = """\
# Settings

<!-- Made by tools/reference.py from daybreak_server.settings.tree; do not edit. -->

This page lists the settings of the server (`daybreakd`). The client reads only two variables: `DAYBREAK_URL` and
`DAYBREAK_API_KEY`.

All settings form one tree. Daybreak reads the tree from two sources:

- a YAML file: the one that `daybreakd --config FILE` names, or else the one that `DAYBREAK_CONFIG` names
- environment variables, which override the file

The name of a variable is `DAYBREAK_` followed by the path of the setting, with `__` between its parts. For example,
`DAYBREAK_POOLS__VIDEO__RANKS=2` means the same as this file:

```yaml
pools:
  video:
    ranks: 2
```

- An unknown `DAYBREAK_…` variable is an error (but variables that Kubernetes sets for Services are ignored). An empty
  variable counts as unset.
- A variable may set a whole section as JSON: `DAYBREAK_POOLS='{"video": {"ranks": 2}}'`. The same applies to `options`.
- If the name of a pool, a tenant or an engine contains `-`, write `_` in a variable.
- Settings that end in `_s` are in seconds, those that end in `_ms` in milliseconds, and those that end in `_bytes` in
  bytes.
- Relative paths start at the working directory.

Daybreak checks all settings before it starts anything. The check fails if a value cannot be used (for example, an
infinite or negative number, or an invalid address), if settings contradict each other, or if the file has a key twice.
The command then exits with code 2 and prints one line for each problem, which says where the problem is and what to
write. No message shows a password.

`daybreakd settings` shows the values that a command would use now.

To keep the password of Redis and the keys of S3 out of the settings, write them into files, and set
`redis.password_file`, `artifacts.s3.access_key_id_file` and `artifacts.s3.secret_access_key_file` to the paths of these
files. You can also write the password into `redis.url`, and provide the S3 keys by the usual AWS variables, files or
roles."""

_EXAMPLE: dict[str, Any] = {
    "pools": {"<pool>": {}},
    "tenants": {"<tenant>": {}},
    "workers": {"engines": {"<engine>": {}}},
}
"""A tree with one pool, one tenant and one engine, for pages that do not depend on anybody's settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting. ``default`` and ``value`` are JSON values without passwords."""

    name: str
    variable: str
    type: str
    default: Any
    value: Any
    changed: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingSection:
    """The settings of one section of the tree. ``title`` says what the section is for."""

    name: str
    title: str
    rows: tuple[SettingRow, ...]


def sections(settings: Settings) -> list[SettingSection]:
    """All settings in the order of the tree: a section for each part of the tree, and for each pool, tenant and
    engine."""
    values = settings.model_dump(mode="json")
    unchanged = {
        **Settings(data_dir=settings.data_dir).model_dump(mode="json"),
        "data_dir": Settings().model_dump(mode="json")["data_dir"],
    }
    return list(_sections(Settings, (), values, unchanged))


def as_object(settings: Settings) -> dict[str, Any]:
    """The settings for ``--json``: name → all that is known about the setting."""
    rows = (row for section in sections(settings) for row in section.rows)
    return {row.name: {key: value for key, value in asdict(row).items() if key != "name"} for row in rows}


def as_text(settings: Settings) -> str:
    """The settings for a terminal of 80 columns or more. ``*`` marks those that differ from their default."""
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
    return "\n".join(
        (*lines, "* differs from its default. To set values in YAML: daybreakd up --config FILE")
    )


def as_markdown() -> str:
    """The page docs/settings.md. It depends on the tree alone, so it is the same on every machine."""
    lines = [_PREAMBLE]
    for section in _sections(Settings, (), _EXAMPLE, _EXAMPLE):
        lines += ["", f"## {_heading(section)}", "", section.title, ""]
        lines += ["| setting | variable | type | default | meaning |", "|---|---|---|---|---|"]
        for row in section.rows:
            kind, meaning = row.type.replace("|", "\\|"), row.description.replace("|", "\\|")
            lines.append(f"| `{row.name}` | `{row.variable}` | {kind} | {_code(row.default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def setting_names() -> list[str]:
    """The names of all settings, such as ``pools.<pool>.ranks``."""
    return [row.name for section in _sections(Settings, (), _EXAMPLE, _EXAMPLE) for row in section.rows]


def _sections(
    kind: type[BaseModel], at: tuple[str, ...], values: Mapping[str, Any], unchanged: Mapping[str, Any]
) -> Iterator[SettingSection]:
    rows: list[SettingRow] = []
    below: list[SettingSection] = []
    for name, field in kind.model_fields.items():
        path = (*at, name)
        inner, value = _group_in(field.annotation), values.get(name, {})
        if inner is None or value is None:
            rows.append(_row(path, field, values.get(name), unchanged.get(name)))
        elif inner[1]:
            for key, entry in value.items():
                usual = (unchanged.get(name) or {}).get(key) or (_defaults(inner[0]) if entry else {})
                below += _described(field, _sections(inner[0], (*path, key), entry, usual))
        else:
            usual = unchanged.get(name) or (_defaults(inner[0]) if value else {})
            below += _described(field, _sections(inner[0], path, value, usual))
    title = " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
    if rows:
        yield SettingSection(name=".".join(at), title=title, rows=tuple(rows))
    yield from below


def _described(field: FieldInfo, found: Iterator[SettingSection]) -> Iterator[SettingSection]:
    """The sections that a field holds. The title of the first one also gets the description of the field."""
    first, *more = found
    yield replace(first, title=f"{first.title} {field.description or ''}".rstrip())
    yield from more


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return kind().model_dump(mode="json")


def _row(path: tuple[str, ...], field: FieldInfo, value: Any, unchanged: Any) -> SettingRow:
    default = _default(path, field)
    if path[0] == "pools" and _computed(field):
        unchanged = default
    return SettingRow(
        name=".".join(path),
        variable=environment_name(path),
        type=_type_name(field.annotation),
        default=masked(default, path[-1]),
        value=masked(value, path[-1]),
        changed=value != unchanged,
        description=field.description or "",
    )


def _default(path: tuple[str, ...], field: FieldInfo) -> Any:
    """The default as a JSON value. A default that depends on other settings is a text with their names."""
    if computed := _computed(field):
        return computed.text.replace("<pool>", path[1]) if path[0] == "pools" else computed.text
    default = field.get_default(call_default_factory=True, validated_data={})
    return str(default) if isinstance(default, Path) else default


def _computed(field: FieldInfo) -> ComputedDefault | None:
    return next((entry for entry in field.metadata if isinstance(entry, ComputedDefault)), None)


def _group_in(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The section that a field holds, and whether the field maps names to such sections. ``None``: no section."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    if get_origin(annotation) is UnionType and len(members) == 1:
        return _group_in(members[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner, True
    return None


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if _group_in(annotation) is not None:
        return "section"
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if origin in _CONTAINERS:
        return _CONTAINERS[origin]
    members = [member for member in get_args(annotation) if member is not NoneType]
    if members:
        return " | ".join(_type_name(member) for member in members)
    return _KINDS.get(annotation, "text")


def _heading(section: SettingSection) -> str:
    return f"`{section.name}`" if section.name else "General"


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _code(value: Any) -> str:
    return f"`{shown}`" if value is not None and (shown := _shown(value)) else ""
