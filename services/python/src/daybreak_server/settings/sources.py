"""Reads a tree of settings from a YAML file and the environment, and reports what is wrong with them.

A variable's path in the tree decides how its text is read. The text of a single setting is taken as it is. The text of
a section or a mapping must be a JSON object. The text of a variable below ``options`` may be any JSON value; text that
is not JSON is taken as it is. ``load`` merges the variables over the file, and pydantic checks the result. Each of
pydantic's errors becomes a line with the setting, what is wrong, the value, and where the value came from: a variable,
or a line of the file. If a rule about several settings is broken, its error may become several lines, which show no
value.

Messages must not show a password. They mask the whole value of a setting whose name ends in a word such as
``password`` or ``token``. In other values, they mask what looks like a password in a URL, even in a malformed one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from daybreak_server.domain.names import VARIABLES, environment_variable
from daybreak_server.settings.rules import config_file
from daybreak_server.settings.rules.config_file import ConfigFile, ConfigFileError

PREFIX: Final = VARIABLES
CLIENT_VARIABLES: Final = frozenset({"DAYBREAK_URL", "DAYBREAK_API_KEY"})
"""Variables that the client reads and the server ignores."""
CONFIG: Final = "DAYBREAK_CONFIG"
"""Names the config file for processes that have no option ``--config``, such as Ray's workers."""

Tree = TypeVar("Tree", bound=BaseModel)

_SECRET_NAME = re.compile(r"(^|_)(secret|token|password|credentials?|api_?key|secret_key)$", re.IGNORECASE)
_SECRET_USERINFO = re.compile(r"(://[^/@:\s]*:)\S*@")
_SECRET_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^/@:]*:).*@", re.IGNORECASE | re.DOTALL)
"""A text that is a URL as a whole. The password is everything from the colon after the user to the last ``@``, even
if a character in it is not escaped."""
_REFUSED_URL = re.compile(r"^([a-z][a-z0-9+.-]*://[^/@:\[]*:)[^@]*$", re.IGNORECASE)
"""A URL without ``@``, in a setting that was refused. If the user forgot ``@host``, as in ``redis://user:secret``, the
text after the colon is a password."""
_SECRET_PORT = re.compile(r"(://[^/@:\s\[]*:)(?!\d{1,5}(?!\w))[^/@\s]+")
"""The text at the place of a URL's port, if it is not a number. If the host was forgotten, this text is a password."""
_SECRET_QUERY = re.compile(
    r"([?&](?:password|token|secret|sig|(?:x-(?:amz|goog)-)?(?:signature|credential|security-token)|awsaccesskeyid)=)"
    r"[^&\s]*",
    re.IGNORECASE,
)
"""A secret in the query of a URL. The signature and the credential of a presigned URL are secrets too, because they
give access to the file until they expire."""
# For a Service named `daybreak` or `daybreak-…`, Kubernetes sets variables with these endings in each pod.
_SERVICE_VARIABLE = re.compile(r"_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)$")


class SettingsError(Exception):
    """The settings cannot be used. ``problems`` has a line for each problem."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(root: type[Tree], *, config: Path | None, environ: Mapping[str, str]) -> Tree:
    """Load a tree: the environment overrides the YAML file, which overrides the defaults.

    The file is ``config``, or else the one that the variable ``DAYBREAK_CONFIG`` names. An empty variable counts as
    unset.

    :raises SettingsError: with a line for each unknown name, wrong value or unreadable file.
    """
    tree, variables, problems = _from_environment(root, environ)
    if config is None and environ.get(CONFIG):
        config = Path(environ[CONFIG])
    try:
        file = config_file.read(config) if config else ConfigFile("")
    except ConfigFileError as exc:
        raise SettingsError((*problems, *exc.problems)) from None
    try:
        settings = root.model_validate(_merged(file.tree, tree))
    except ValidationError as exc:
        found = tuple(
            line
            for error in exc.errors()
            for line in _readable(root, error, file=file, variables=variables).splitlines()
        )
        raise SettingsError((*problems, *found)) from None  # pydantic's own text quotes the refused value
    if problems:
        raise SettingsError(tuple(problems))
    return settings


def environment_name(path: tuple[str, ...]) -> str:
    """``("http", "port")`` → ``DAYBREAK_HTTP__PORT``."""
    return environment_variable(*path)


def leaves(root: type[BaseModel], *names: str) -> Iterator[tuple[str, ...]]:
    """The paths of all settings. Settings of a pool, a tenant or an engine come once for each of ``names``."""
    yield from _leaves(root, (), names)


def masked(value: Any, name: str = "") -> Any:
    """A value (text, tree or list) with all secrets replaced by ``***``. ``name``: the name of its setting."""
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, name) for item in value]
    if value is not None and _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, str):
        shown = value
        if _SECRET_URL.match(value):
            shown = _SECRET_URL.sub(r"\1***@", value)
        return _SECRET_PORT.sub(r"\1***", _SECRET_QUERY.sub(r"\1***", _SECRET_USERINFO.sub(r"\1***@", shown)))
    return value


def _from_environment(
    root: type[BaseModel], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str], list[str]]:
    """The tree in the environment, the variable of each path, and problems with names and JSON."""
    tree: dict[str, Any] = {}
    variables: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in (CLIENT_VARIABLES | {CONFIG}) or not text:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        kind = _kind(root, path)
        if kind is None:
            if not (_SERVICE_VARIABLE.search(name) or (name.endswith("_PORT") and "://" in text)):
                problems.append(f"{name}: there is no such setting; {_suggestion(root, name, path)}")
            continue
        if path[0] == "pools" and len(path) > 1:
            path[1] = path[1].replace("_", "-")
        if (other := variables.get(tuple(path))) is not None:
            problems.append(f"{name}: {other} is the same setting; unset one of them")
            continue
        try:
            value = _value(kind, text)
        except ValueError as exc:
            problems.append(f"{name}: {exc}")
            continue
        variables[tuple(path)] = name
        for part in reversed(path):
            value = {part: value}
        tree = _merged(tree, value)
    return tree, variables, problems


def _value(kind: type[Any], text: str) -> Any:
    """The value of a variable. :raises ValueError: if the text is wrong. The message says what to write instead."""
    if kind is str:
        return text
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_finite)
    except _DuplicateKeyError as exc:
        raise ValueError(f"{exc.args[0]} is given twice; keep one of them") from None
    except (ValueError, RecursionError):
        value = text
    if kind is dict and not isinstance(value, dict):
        raise ValueError('write a JSON object, such as {"a": 1}, or set its members one by one')
    return value


class _DuplicateKeyError(Exception):
    """A JSON object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateKeyError(name)
    return dict(pairs)


def _not_finite(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _kind(root: type[BaseModel], path: list[str]) -> type[Any] | None:
    """What a variable holds: text (``str``), a JSON object (``dict``), any value (``object``); ``None`` if unknown."""
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
    """The annotation of a section, without ``Annotated``, ``| None`` and the like. For a single setting, ``str``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if (
        origin is dict
        or annotation is Any
        or (isinstance(annotation, type) and issubclass(annotation, BaseModel))
    ):
        return annotation
    inner = [argument for argument in get_args(annotation) if argument is not NoneType]
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
    """A suggestion of the known variable that is most similar to ``name``."""
    known = [environment_name(leaf) for leaf in leaves(root, path[1] if len(path) > 1 else "video")]

    def similarity(candidate: str) -> float:
        last = candidate.rpartition("__")[2].lower()
        bonus = 0.3 if last in {path[-1], path[0]} else 0
        return difflib.SequenceMatcher(None, name, candidate).ratio() + bonus

    return f"did you mean {max(known, key=similarity)}? `daybreakd settings` lists all settings"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees as one. Values of ``above`` override those of ``below``."""
    tree = dict(below)
    for key, value in above.items():
        base = tree.get(key)
        tree[key] = (
            _merged(base, value) if isinstance(base, Mapping) and isinstance(value, Mapping) else value
        )
    return tree


_PLAIN: Final = {
    "finite_number": "must be a finite number",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "dict_type": "must be a mapping of settings",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}
"""Our messages, by pydantic's type of error. They replace messages of pydantic that mention Python types."""


def _without_login(value: str) -> str:
    """A refused value, with ``***`` for what may be a password: in a URL without ``@``, all that follows the user
    and a colon; in a text that is no URL, all that precedes an ``@``."""
    if "://" in value:
        return _REFUSED_URL.sub(r"\1***", value)
    return re.sub(r"[^,]*@", "***@", value)


def _readable(
    root: type[BaseModel], error: Any, *, file: ConfigFile, variables: Mapping[tuple[str, ...], str]
) -> str:
    """One of pydantic's errors as one or more lines: the setting, what is wrong, the value, and where it came from."""
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    name = ".".join(path)
    place = _place(path, file, variables)
    if error["type"] == "extra_forbidden":
        known = [".".join(leaf) for leaf in leaves(root, path[1] if len(path) > 1 else "video")]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0)
        suffix = f" ({place})" if place else ""
        return (
            f"{name}: there is no such setting; did you mean {close[0]}? "
            f"`daybreakd settings` lists all settings{suffix}"
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    message = _PLAIN.get(error["type"], re.sub(r"^Input should be", "must be", message))
    title = f"{name} ({environment_name(path)}): " if path else ""
    value = masked(error["input"], path[-1] if path else "")
    if not isinstance(value, str | int | float):  # a rule about several settings names them in its message
        suffix = f" ({place})" if place else ""
        return "\n".join(f"{title}{line}{suffix}" for line in message.splitlines())
    shown = repr(_without_login(value) if isinstance(value, str) else value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    return f"{title}{message}; it is {shown}" + (f" ({place})" if place else "")


_MAX_SHOWN: Final = 200


def _place(path: tuple[str, ...], file: ConfigFile, variables: Mapping[tuple[str, ...], str]) -> str | None:
    """Where a setting came from: file and line, or a variable. ``None`` if it came from its own variable, because
    the message already has the name of this variable."""
    for end in range(len(path), 0, -1):
        if (variable := variables.get(path[:end])) is not None:
            return None if variable == environment_name(path) else f"from {variable}"
    found = file.place(path)
    return f"in {found}" if found else None
