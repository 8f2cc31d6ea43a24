"""Reads a config file, which is a YAML mapping, and records the line of each key.

This module is stricter than YAML. A YAML loader lets a key appear twice and takes the last value, which hides half of
a badly merged file. A YAML loader also accepts nested aliases, which can turn a few lines into gigabytes. This module
refuses a key that appears twice, and a file with more than ``MAX_BYTES`` bytes, ``MAX_VALUES`` values or ``MAX_DEPTH``
levels. It also refuses an alias inside its own anchor, keys that are not text, unknown tags, and numbers that are not
finite.

``read`` parses the file into nodes, checks the size, checks the keys and records their lines, and then builds the
values. Messages never quote a value, because it may be a password.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES: Final = 1 << 20
MAX_VALUES: Final = 100_000
"""The maximum number of keys and values. An alias counts as all that it stands for."""
MAX_DEPTH: Final = 50
_MERGE = "tag:yaml.org,2002:merge"
_IN_QUOTES = "put a value that starts with `*`, `&` or `!` in quotes"
_HIDDEN = "(not shown)"
_HARMLESS = re.compile(r"'(?:[ ,:}\]-]|<[a-z ]+>)'")


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
        problems: list[str] = []
        lines = _flat(_check_keys(root, (), problems, name))
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
            f"{path}: it is larger than {MAX_BYTES >> 20} MiB, so it is probably not a config file; check the path"
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
    problem, context = (str(getattr(exc, part, None) or "") for part in ("problem", "context"))
    if isinstance(exc, yaml.reader.ReaderError):
        why = "it contains a control character; remove it"
    elif "alias" in problem:
        why = f"there is no anchor with this name; {_IN_QUOTES}"
    elif "duplicate anchor" in context:
        why = f"an anchor is defined twice; {_IN_QUOTES}"
    elif "scanning an alias" in context or "scanning an anchor" in context:
        why = f"an anchor's name must be here; {_IN_QUOTES}"
    elif "single document" in problem or "another document" in problem:
        why = "a second document starts here; keep one document"
    elif "\\t" in problem:
        why = "a tab is used for indentation; indent with spaces"
    else:
        why = f"{_without_quotes(problem) or 'it is not YAML'}; correct the YAML there"
    return f"{where}: cannot be read: {why}"


def _without_quotes(problem: str) -> str:
    """PyYAML's message without the parts of the file that it quotes, for example the first character of a password.

    It also quotes which punctuation marks and tokens (``<scalar>``) it expected. Those remain.
    """
    return re.sub(
        r"""'[^']*'|"[^"]*\"""", lambda quote: quote[0] if _HARMLESS.fullmatch(quote[0]) else _HIDDEN, problem
    )


def _check_size(root: Node, name: str) -> None:
    """Refuse too many values, too many levels, and a node that contains itself. Each use of an alias counts."""
    sizes: dict[int, tuple[int, int]] = {}
    parents: set[int] = set()

    def size(node: Node, depth: int) -> tuple[int, int]:
        """The number of keys and values in ``node``, and the number of levels below it."""
        if id(node) in parents:
            raise ConfigFileError(f"{_at(node, name)}: an alias is inside its own anchor; remove it")
        levels = sizes[id(node)][1] if id(node) in sizes else 0
        if depth + levels > MAX_DEPTH:
            raise ConfigFileError(
                f"{_at(node, name)}: it has more than {MAX_DEPTH} levels; nest it less deeply"
            )
        if id(node) not in sizes:
            parents.add(id(node))
            children = [size(child, depth + 1) for child in _children(node)]
            parents.remove(id(node))
            values = 1 + sum(count for count, _ in children)
            sizes[id(node)] = values, max((below + 1 for _, below in children), default=0)
        return sizes[id(node)]

    if size(root, 0)[0] > MAX_VALUES:
        raise ConfigFileError(
            f"{name}: it has more than {MAX_VALUES} keys and values; make it smaller (an alias counts as all that it "
            "stands for)"
        )


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


_Lines = dict[tuple[str, ...], int]


def _check_keys(node: Node, path: tuple[str, ...], problems: list[str], name: str) -> dict[str, _Lines]:
    """Check the keys below ``node`` and add a sentence to ``problems`` for each problem.

    :returns: for each key of ``node``, its line and the lines of all keys below it. A mapping that sets a key itself
        may also merge (``<<``) a mapping that has the same key. The merged value is then ignored, and so are its lines.
    """
    if isinstance(node, SequenceNode):
        for item in node.value:
            _check_keys(item, (*path, "[]"), problems, name)
    if not isinstance(node, MappingNode):
        return {}
    lines: dict[str, _Lines] = {}
    for key, value in node.value:
        if key.tag == _MERGE:  # reversed, because the first of several merged mappings takes precedence
            for merged in reversed(value.value) if isinstance(value, SequenceNode) else [value]:
                lines |= _check_keys(merged, path, problems, name)
    first: dict[str, int] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            problems.append(f"{name}, line {line}: a key is not text; put it in quotes")
            continue
        here = (*path, key.value)
        if key.value in first:
            problems.append(
                f"{name}, line {line}: {'.'.join(here)} is given twice, first on line {first[key.value]}; "
                "keep one of them"
            )
            continue
        first[key.value] = line
        lines[key.value] = {here: line} | _flat(_check_keys(value, here, problems, name))
    return lines


def _flat(lines: dict[str, _Lines]) -> _Lines:
    return {path: line for below in lines.values() for path, line in below.items()}


def _built(root: MappingNode, name: str) -> dict[str, Any]:
    """Build the values. The loader's own messages are replaced, because they quote the value."""

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Node, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep=deep)
            except yaml.constructor.ConstructorError as exc:
                place = exc.problem_mark.line + 1 if exc.problem_mark else node.start_mark.line + 1
                raise ConfigFileError(f"{name}, line {place}: a tag is unknown; {_IN_QUOTES}") from None
            except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
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
