"""How a task's input goes from the API to the ranks: as JSON that the ranks read back as what was checked at submit.

Pydantic models do not always survive that way: a before-validator may see its own output, an alias is dumped by
another name than it is read by, a secret is dumped as asterisks. So the API reads back what it is about to store, as a
rank will, and stores only a text that gives the same values:

1. the checked values, complete with their defaults, by alias or else by name; or
2. what the client sent, completed with the defaults of the fields that it left out.

Where none does, the input is refused with the name of the field. What cannot work for any input is refused when the
server starts (:func:`refuse_unusable`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import from_json

from daybreak_server.workloads.base import WorkloadSpec


class UnusableSpecError(ValueError):
    """No input of a workload could reach its ranks as it was checked; the message names the field."""


class ChangedInputError(ValueError):
    """An input would reach the ranks as something else than was checked; ``field`` says where."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"the workload's field {field!r} does not read back as it was checked: its validators give another value"
            " the second time, or its serializer loses something"
        )
        self.field = field


def context_of(spec: WorkloadSpec[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the validators of a pool's inputs find as ``info.context``."""
    return {"limits": spec.limits(options)}


def restored(spec: WorkloadSpec[Any], stored: str, context: Mapping[str, Any]) -> Any:
    """The input of a task as its ranks get it. :raises pydantic.ValidationError: when this version refuses it."""
    return spec.Params.model_validate(from_json(stored), context=context, by_alias=True, by_name=True)


def stored_form(
    spec: WorkloadSpec[Any], params: BaseModel, sent: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    """The text from which :func:`restored` makes ``params`` again, which were checked from ``sent``.

    :raises ChangedInputError: when there is none.
    """
    changed = ""
    for write in (_by_alias, _by_name, _as_sent):
        try:
            text = write(params, sent)
            found = changed_field(params, restored(spec, text, context))
        except (
            Exception
        ) as exc:  # any validator or serializer of the workload's, on values that it did not expect
            changed = changed or _field_of(exc)
            continue
        if found is None:
            return text
        changed = changed or found
    raise ChangedInputError(changed or "input")


def refuse_unusable(spec: WorkloadSpec[Any]) -> None:
    """:raises UnusableSpecError: when the input's type can hold what no task may carry, or is no pydantic model."""
    params: Any = spec.Params
    if not (isinstance(params, type) and issubclass(params, BaseModel)):
        raise UnusableSpecError(f"workload {spec.name}: Params must be a pydantic BaseModel, not {params!r}")
    for path in _secrets(params, "", set()):
        raise UnusableSpecError(
            f"workload {spec.name}: the field {path} of Params is a secret, and inputs are stored and shown to clients:"
            " pass secrets by the environment of the workers or by a file, and refer to them in the input by name"
        )
    try:
        params.model_json_schema()
    except Exception as exc:
        raise UnusableSpecError(f"workload {spec.name}: Params has no JSON schema: {exc}") from exc


def changed_field(one: BaseModel, other: BaseModel) -> str | None:
    """The first field in which two inputs differ; ``None`` where they are alike."""
    if type(one) is not type(other):
        return "input"
    mine, theirs = one.__dict__, other.__dict__
    for name in type(one).model_fields:
        if not _same(mine[name], theirs[name]):
            return name
    extra, others = one.model_extra or {}, other.model_extra or {}
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
    """Fields without a value, which is also their default: they are not stored."""
    values, fields = params.__dict__, type(params).model_fields
    return {name for name, field in fields.items() if field.default is None and values[name] is None}


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def _field_of(exc: Exception) -> str:
    errors: Callable[[], Any] | None = getattr(exc, "errors", None)
    found = errors() if callable(errors) else []
    return str(found[0]["loc"][0]) if found and found[0].get("loc") else ""


def _secrets(kind: Any, path: str, seen: set[Any]) -> Iterator[str]:
    """Paths of the secrets in an annotation, through models, dataclasses, typed dicts, and containers of them."""
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
