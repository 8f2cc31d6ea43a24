"""Makes the command that starts an engine for one model: fills in the words of a template, without a shell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from daybreak.wire import AssignedModel
from daybreak_server.settings.rules.engine_command import PLACEHOLDER, words_of

_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
_OF_WORKER = frozenset({"host", "port"})


class CommandError(Exception):
    """The model cannot be started by this engine. The message says why."""


def command_of(template: str, model: AssignedModel, *, host: str, port: int) -> list[str]:
    """The words of the command that starts the engine for ``model``.

    :raises CommandError: if the source or an option cannot be used, or if the model has options and the template has
        no place for them.
    """
    if model.source.startswith("-"):
        raise CommandError(f"the source {model.source!r} looks like an option; write a path or a name")
    options = options_of(model.args)
    values = {"source": model.source, "alias": model.alias, "host": host, "port": str(port)}
    words: list[str] = []
    takes_options = False
    for word in words_of(template):
        if word == "{args}":
            words += options
            takes_options = True
        else:
            words.append(PLACEHOLDER.sub(lambda found: values[found[1]], word))
    if options and not takes_options:
        raise CommandError(
            f"the command of the engine {model.engine} has no {{args}}, so the model cannot have args; remove them, or "
            "add {args} to the command"
        )
    return words


def options_of(args: Mapping[str, Any]) -> list[str]:
    """``{"max_model_len": 4096}`` → ``--max-model-len 4096``.

    ``true`` becomes an option without a value, ``false`` and ``null`` leave the option out, a list becomes several
    values, and an object becomes JSON. :raises CommandError: if a name cannot be used.
    """
    words: list[str] = []
    for name, value in args.items():
        if not _OPTION.fullmatch(name):
            raise CommandError(f"{name!r} is not the name of an option; write one such as max_model_len")
        if name in _OF_WORKER:
            raise CommandError(f"the worker sets {name}; remove it from args")
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is True:
            continue
        words += [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
    return words


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
