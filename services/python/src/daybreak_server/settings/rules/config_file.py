"""Reads a config file: a YAML mapping, and the line of each key.

This is stricter than YAML. A YAML loader lets a key appear twice and takes the last value, which hides half of a badly
merged file. And it lets aliases refer to collections of aliases, which can turn a few lines into gigabytes. Both are
refused here, as are keys that are not text, unknown tags, and numbers that are not finite.

``read`` composes the nodes, checks their size and their keys while it notes the lines, and only then builds the values.
Messages never quote a value, because it may be a password.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES: Final = 1 << 20
MAX_VALUES: Final = 100_000
"""The maximum number of values, including those that aliases repeat."""
MAX_DEPTH: Final = 50
_MERGE = "tag:yaml.org,2002:merge"
_IN_QUOTES = "put a value that starts with * & or ! in quotes"


class ConfigFileError(Exception):
    """A config file cannot be used. ``problems`` has a sentence for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The contents of a config file. ``lines``: path of a key → its line."""

    name: str
    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    def place(self, path: tuple[str, ...]) -> str | None:
        """``FILE, line N`` of a setting, or of its nearest parent in the file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}, line {self.lines[path[:end]]}"
        return None


def read(path: Path) -> ConfigFile:
    """Read a config file. :raises ConfigFileError: with a sentence for each problem."""
    name = str(path)
    text = _text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or (isinstance(root, ScalarNode) and root.tag == "tag:yaml.org,2002:null"):
            return ConfigFile(name)
        if not isinstance(root, MappingNode):
            kind = "list" if isinstance(root, SequenceNode) else "single value"
            raise ConfigFileError(
                f"{name}: it must be a mapping of settings, not a {kind}; write `setting: value`"
            )
        _check_size(root, name)
        lines: dict[tuple[str, ...], int] = {}
        problems = list(_problems(root, (), lines, name))
        if problems:
            raise ConfigFileError(*problems)
        return ConfigFile(name, _built(root, name), lines)
    except yaml.YAMLError as exc:
        raise ConfigFileError(_syntax_error(exc, name)) from None
    except RecursionError:
        raise ConfigFileError(f"{name}: it has more than {MAX_DEPTH} levels; nest it less deeply") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise ConfigFileError(
            f"{path}: cannot be read: {why}; name a YAML file that this user may read"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigFileError(
            f"{path}: cannot be read: it has more than {MAX_BYTES} bytes; name a config file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise ConfigFileError(
            f"{path}, line {line}: cannot be read: it is not UTF-8; save it as UTF-8"
        ) from None


def _syntax_error(exc: yaml.YAMLError, name: str) -> str:
    mark = getattr(exc, "problem_mark", None)
    where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else name
    problem = str(getattr(exc, "problem", None) or "")
    if isinstance(exc, yaml.reader.ReaderError):
        return f"{where}: cannot be read: it contains a control character; remove it"
    if "alias" in problem:
        return f"{where}: cannot be read: there is no anchor with this name; {_IN_QUOTES}"
    if "anchor" in problem:
        return f"{where}: cannot be read: an anchor is defined twice; {_IN_QUOTES}"
    if "single document" in problem or "another document" in problem:
        return f"{where}: cannot be read: a second document starts here; keep one document"
    if "\\t" in problem:
        return f"{where}: cannot be read: a tab is used for indentation; indent with spaces"
    return f"{where}: cannot be read: {problem or 'it is not YAML'}; correct the YAML there"


def _check_size(root: Node, name: str) -> None:
    """Refuse aliases that expand to too many values, and nodes that contain themselves."""
    sizes: dict[int, int] = {}
    parents: set[int] = set()

    def size(node: Node, depth: int) -> int:
        if id(node) in parents:
            raise ConfigFileError(f"{_at(node, name)}: an alias is inside its own anchor; remove it")
        if depth > MAX_DEPTH:
            raise ConfigFileError(
                f"{_at(node, name)}: it has more than {MAX_DEPTH} levels; nest it less deeply"
            )
        if id(node) not in sizes:
            parents.add(id(node))
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in _children(node))
            parents.remove(id(node))
        return sizes[id(node)]

    if size(root, 0) > MAX_VALUES:
        raise ConfigFileError(f"{name}: its aliases expand to more than {MAX_VALUES} values; use fewer")


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _problems(
    node: Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], name: str
) -> Iterator[str]:
    """Problems with the keys below ``node``. Adds their lines to ``lines``."""
    if isinstance(node, SequenceNode):
        for item in node.value:
            yield from _problems(item, (*path, "[]"), {}, name)
    if not isinstance(node, MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, SequenceNode) else [value]:
                yield from _problems(merged, path, lines, name)
            continue
        if not isinstance(key, ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            yield f"{name}, line {line}: a key is not text; put it in quotes"
            continue
        here = (*path, key.value)
        if key.value in first:
            yield (
                f"{name}, line {line}: {'.'.join(here)} is given twice, first in line {first[key.value]}; "
                "keep one of them"
            )
            continue
        first[key.value] = line
        lines[here] = line
        yield from _problems(value, here, lines, name)


def _built(root: MappingNode, name: str) -> dict[str, Any]:
    """Build the values. The loader's own messages are replaced, because they quote the value."""

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Node, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep=deep)
            except yaml.constructor.ConstructorError as exc:
                place = exc.problem_mark.line + 1 if exc.problem_mark else node.start_mark.line + 1
                raise ConfigFileError(f"{name}, line {place}: a tag is unknown; {_IN_QUOTES}") from None
            except (ValueError, TypeError, KeyError, OverflowError):
                raise ConfigFileError(
                    f"{_at(node, name)}: a value cannot be read; put text in quotes"
                ) from None
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigFileError(f"{_at(node, name)}: a number is not finite; write a finite number")
            return value

    loader = Loader("")
    try:
        tree = loader.construct_document(root)
    finally:
        loader.dispose()
    assert isinstance(tree, dict)
    return tree


def _at(node: Node, name: str) -> str:
    return f"{name}, line {node.start_mark.line + 1}"
