"""Reads a tree of settings from a YAML file and the environment, and says what is wrong with them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from daybreak_server.domain.names import VARIABLES, environment_variable

PREFIX: Final = VARIABLES
OF_THE_CLIENT: Final = frozenset({"DAYBREAK_URL", "DAYBREAK_API_KEY"})
"""Names that the client reads and the server leaves alone."""
CONFIG: Final = "DAYBREAK_CONFIG"
"""Names the file for processes that have no command line of ours, such as Ray's."""

Tree = TypeVar("Tree", bound=BaseModel)

_SECRET_NAME = re.compile(r"(^|_)(secret|token|password|credentials?|api_?key|secret_key)$", re.IGNORECASE)
_SECRET_USERINFO = re.compile(r"(://[^/@:\s]*:)[^@\s]*@")
_SECRET_QUERY = re.compile(r"([?&](?:password|token|secret)=)[^&\s]*", re.IGNORECASE)
# Kubernetes puts such names into each pod for a Service called `daybreak` or `daybreak-…`.
_OF_A_SERVICE = re.compile(r"_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)$")


class SettingsError(Exception):
    """The settings are not usable; ``problems`` has one readable line for each thing that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(root: type[Tree], *, config: Path | None, environ: Mapping[str, str]) -> Tree:
    """Defaults, then the YAML file, then the environment. An empty variable counts as absent.

    The file is ``config``, else the one that the variable ``DAYBREAK_CONFIG`` names.

    :raises SettingsError: with a line for each unknown name, wrong value, or unreadable file.
    """
    tree, problems = _from_environment(root, environ)
    if config is None and environ.get(CONFIG):
        config = Path(environ[CONFIG])
    try:
        settings = root.model_validate(_merged(_from_file(config) if config else {}, tree))
    except ValidationError as exc:
        found = tuple(_readable(root, error) for error in exc.errors())
        raise SettingsError((*problems, *found)) from exc
    except SettingsError as exc:
        raise SettingsError((*problems, *exc.problems)) from exc
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def environment_name(path: tuple[str, ...]) -> str:
    """``("http", "port")`` → ``DAYBREAK_HTTP__PORT``."""
    return environment_variable(*path)


def leaves(root: type[BaseModel], *names: str) -> Iterator[tuple[str, ...]]:
    """The paths of all settings; where a setting is kept by name (``pools``), once for each of ``names``."""
    yield from _leaves(root, (), names)


def masked(value: Any, name: str = "") -> Any:
    """The same value (text, tree or list) fit to be shown: without passwords."""
    if isinstance(value, Mapping):
        return {key: masked(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked(one, name) for one in value]
    if isinstance(value, str):
        if _SECRET_NAME.search(name):
            return "***"
        return _SECRET_QUERY.sub(r"\1***", _SECRET_USERINFO.sub(r"\1***@", value))
    return value


def _from_file(config: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise SettingsError((f"{config}: cannot be read: {exc}",)) from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError((f"{config}: a mapping of settings is expected, not a {type(tree).__name__}",))
    return tree


def _from_environment(root: type[BaseModel], environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The tree that the environment gives, and what is wrong with its names."""
    tree: dict[str, Any] = {}
    problems: list[str] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in (OF_THE_CLIENT | {CONFIG}) or not text:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        kind = _kind(root, path)
        if kind is None:
            if not (_OF_A_SERVICE.search(name) or (name.endswith("_PORT") and "://" in text)):
                problems.append(f"{name}: there is no such setting; {_suggestion(root, name, path)}")
            continue
        if path[0] == "pools" and len(path) > 1:
            path[1] = path[1].replace("_", "-")
        value: Any = text
        if kind is not str:
            try:
                value = json.loads(text)
            except ValueError:
                if kind is dict:
                    problems.append(
                        f'{name}: write a JSON object, such as {{"a": 1}}, or set its parts alone'
                    )
                    continue
        for part in reversed(path):
            value = {part: value}
        tree = _merged(tree, value)
    return tree, problems


def _kind(root: type[BaseModel], path: list[str]) -> type[Any] | None:
    """What a variable holds: text (``str``), a JSON object (``dict``), anything (``object``); or unknown."""
    kind: Any = root
    for part in path:
        if not part:
            return None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if part not in kind.model_fields:
                return None
            kind = _plain(kind.model_fields[part].annotation)
        elif get_origin(kind) is dict:
            kind = _plain(get_args(kind)[1])
        elif kind is not Any:
            return None
    if kind is Any:
        return object
    return dict if get_origin(kind) is dict or issubclass(kind, BaseModel) else str


def _plain(annotation: Any) -> Any:
    """An annotation without ``Annotated``, ``| None`` and the like; leaves become ``str``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if (
        origin is dict
        or annotation is Any
        or (isinstance(annotation, type) and issubclass(annotation, BaseModel))
    ):
        return annotation
    inner = [one for one in get_args(annotation) if one is not NoneType]
    return _plain(inner[0]) if len(inner) == 1 and origin is not Literal else str


def _leaves(kind: Any, at: tuple[str, ...], names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from _leaves(_plain(field.annotation), (*at, name), names)
    elif get_origin(kind) is dict and get_args(kind)[1] is not Any:
        for name in names:
            yield from _leaves(_plain(get_args(kind)[1]), (*at, name), names)
    else:
        yield at


def _suggestion(root: type[BaseModel], name: str, path: list[str]) -> str:
    """The known name that is most like this one."""
    known = [environment_name(one) for one in leaves(root, path[1] if len(path) > 1 else "video")]

    def likeness(one: str) -> float:
        last = one.rpartition("__")[2].lower()
        return difflib.SequenceMatcher(None, name, one).ratio() + (0.3 if last in {path[-1], path[0]} else 0)

    return f"did you mean {max(known, key=likeness)}? `daybreakd settings` lists them all"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees as one; where both have a value, that of ``above``."""
    tree = dict(below)
    for key, value in above.items():
        old = tree.get(key)
        tree[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return tree


def _readable(root: type[BaseModel], error: Any) -> str:
    """A line about one of pydantic's errors: where, what, and what was given."""
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = [".".join(one) for one in leaves(root, path[1] if len(path) > 1 else "video")]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0)
        return (
            f"{name}: there is no such setting; did you mean {close[0]}? `daybreakd settings` lists them all"
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    given = masked(error["input"], path[-1] if path else "")
    return f"{name} ({environment_name(path)}): {message}; it is {given!r}"
