"""Writes a task's input as JSON, from which the ranks read exactly the values that the API has checked.

Pydantic models do not always survive a round trip through JSON: a before-validator may see its own output, a field may
be written under one alias and read under another, and a secret is written as asterisks. So the API reads back what it
is about to store, as a rank will, and stores the first of these forms that gives the same values:

1. the checked values and all defaults except ``None``, by alias;
2. the checked values and all defaults except ``None``, by field name;
3. what the client sent, and all defaults except ``None`` of the fields that the client left out.

If no form gives the same values, the API refuses the input and names the field. Some types of input can never be used:
those that are not pydantic models, have a secret, or have no JSON schema. :func:`refuse_unusable` refuses them when a
process starts and looks up the workload.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import from_json

from daybreak_server.workloads.base import WorkloadSpec


class UnusableSpecError(ValueError):
    """The type of the workload's input cannot be used. The message says why, and names the field if it is a secret."""


class ChangedInputError(ValueError):
    """The ranks would get other values than those that the API checked. ``field``: the first field that differs, or
    the word ``input``."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"the workload's field {field!r} changes on its way through JSON: its validators return another value"
            " the second time, or its serializer loses something; correct them in the workload's Params"
        )
        self.field = field


def context_of(spec: WorkloadSpec[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the validators of a pool's inputs get as ``info.context``."""
    return {"limits": spec.limits(options)}


def restored(spec: WorkloadSpec[Any], stored: str, context: Mapping[str, Any]) -> Any:
    """The input of a task, as its ranks get it.

    :raises pydantic.ValidationError: when the installed version of the workload refuses the input.
    """
    return spec.Params.model_validate(from_json(stored), context=context, by_alias=True, by_name=True)


def stored_form(
    spec: WorkloadSpec[Any], params: BaseModel, sent: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    """The JSON from which :func:`restored` returns ``params`` again.

    :param sent: The input of the client, from which ``params`` were made.
    :raises ChangedInputError: when no form gives the same values.
    """
    changed = ""
    for write in (_by_alias, _by_name, _as_sent):
        try:
            text = write(params, sent)
            differing = changed_field(params, restored(spec, text, context))
        except Exception as exc:  # validators and serializers of the workload may raise anything
            changed = changed or _field_of(exc)
            continue
        if differing is None:
            return text
        changed = changed or differing
    raise ChangedInputError(changed or "input")


def refuse_unusable(spec: WorkloadSpec[Any]) -> None:
    """Check the type of a workload's input.

    :raises UnusableSpecError: when it is not a pydantic model, has a secret, or has no JSON schema.
    """
    params: Any = spec.Params
    if not (isinstance(params, type) and issubclass(params, BaseModel)):
        raise UnusableSpecError(f"workload {spec.name}: Params must be a pydantic BaseModel, not {params!r}")
    for path in _secrets(params, "", set()):
        raise UnusableSpecError(
            f"workload {spec.name}: the field {path} of Params is a secret, but inputs are stored and shown to clients;"
            " give secrets to the ranks by the environment or a file, and refer to them by name in the input"
        )
    try:
        _make_schema(params)
    except Exception as exc:
        raise UnusableSpecError(f"workload {spec.name}: Params has no JSON schema: {exc}") from exc


@cache
def _make_schema(params: type[BaseModel]) -> None:
    """Make the JSON schema, once for each type that has one."""
    params.model_json_schema()


def changed_field(before: BaseModel, after: BaseModel) -> str | None:
    """The first field in which two inputs differ; ``input`` if their types differ; ``None`` if they are equal."""
    if type(before) is not type(after):
        return "input"
    for name in type(before).model_fields:
        if not _same(before.__dict__[name], after.__dict__[name]):
            return name
    extra, others = before.model_extra or {}, after.model_extra or {}
    return next((name for name in {**extra, **others} if not _same(extra.get(name), others.get(name))), None)


def _by_alias(params: BaseModel, _: Mapping[str, Any]) -> str:
    return params.model_dump_json(by_alias=True, round_trip=True, exclude=_absent(params))


def _by_name(params: BaseModel, _: Mapping[str, Any]) -> str:
    return params.model_dump_json(by_alias=False, round_trip=True, exclude=_absent(params))


def _as_sent(params: BaseModel, sent: Mapping[str, Any]) -> str:
    left_out = set(type(params).model_fields) - params.model_fields_set - _absent(params)
    defaults = json.loads(params.model_dump_json(by_alias=False, round_trip=True, include=left_out))
    return json.dumps({**defaults, **sent}, separators=(",", ":"), allow_nan=False)


def _absent(params: BaseModel) -> set[str]:
    """Fields whose value and default are both ``None``: they are not stored."""
    values, fields = params.__dict__, type(params).model_fields
    return {name for name, field in fields.items() if field.default is None and values[name] is None}


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if isinstance(before, float) and isinstance(after, float) and math.isnan(before):
        return math.isnan(after)
    return type(before) is type(after) and bool(before == after)


def _field_of(exc: Exception) -> str:
    errors: Callable[[], Any] | None = getattr(exc, "errors", None)
    details = errors() if callable(errors) else []
    return str(details[0]["loc"][0]) if details and details[0].get("loc") else ""


def _secrets(kind: Any, path: str, seen: set[Any]) -> Iterator[str]:
    """Paths of the secrets in an annotation, within models, dataclasses, typed dicts and containers."""
    origin = get_origin(kind)
    if origin is Secret or (isinstance(kind, type) and issubclass(kind, SecretStr | SecretBytes | Secret)):
        yield path
        return
    for part in get_args(kind):
        yield from _secrets(part, path, seen)
    members: dict[str, Any] = {}
    if isinstance(kind, type) and kind not in seen:
        seen.add(kind)
        if issubclass(kind, BaseModel):
            members = {name: field.annotation for name, field in kind.model_fields.items()}
        elif dataclasses.is_dataclass(kind) or is_typeddict(kind):
            members = get_type_hints(kind)
    for name, member in members.items():
        yield from _secrets(member, f"{path}.{name}" if path else name, seen)
