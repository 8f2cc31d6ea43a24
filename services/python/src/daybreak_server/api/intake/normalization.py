"""Normalizes request bodies before a pydantic model validates them. Only the model's JSON schema is needed.

Two rules hold for all bodies and all workloads:

* ``null`` for an optional field means that the field is absent, so its default applies.
* If the schema wants an integer, any number without a fraction is accepted as an integer (``20.0``, ``2e1``).

So a client need not know whether a model is strict, or how its author declared an optional field.

Three kinds of values are left unchanged: invalid values, which the model then reports; objects and lists for which the
schema has several alternatives of the same type; and floats of 2^53 or more, which do not stand for one exact integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

_EXACT: Final = 1 << 53
"""From this value on, one float stands for several integers, so the integer that the client meant is unknown."""
_NORMALIZABLE: Final = (float, dict, list)
"""Types of values that may have to change, or may contain such values."""
Schema = Mapping[str, Any]


class Normalizer:
    """Normalizes the bodies of one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._schema: Schema = model.model_json_schema()
        self._definitions: Mapping[str, Schema] = self._schema.get("$defs", {})

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A normalized copy of the body."""
        return self._object(dict(data), self._resolved(self._schema))

    def _value(self, value: Any, schema: Schema) -> Any:
        options = self._options(schema)
        if isinstance(value, float):
            return int(value) if _is_integral(value) and _wants_integer(options) else value
        fitting = [option for option in options if option.get("type") == _KIND[type(value)]]
        if len(fitting) != 1:
            return value
        if isinstance(value, dict):
            return self._object(value, fitting[0])
        items = fitting[0].get("items")
        if not isinstance(items, Mapping):
            return value
        return [self._value(item, items) if isinstance(item, _NORMALIZABLE) else item for item in value]

    def _object(self, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
        fields: Mapping[str, Schema] = schema.get("properties", {})
        required = schema.get("required", ())
        others = schema.get("additionalProperties")
        if not fields and not isinstance(others, Mapping):
            return value
        normalized: dict[str, Any] = {}
        for name, item in value.items():
            if item is None and name in fields and name not in required:
                continue
            normalized[name] = item
            if isinstance(item, _NORMALIZABLE) and isinstance(field := fields.get(name, others), Mapping):
                normalized[name] = self._value(item, field)
        return normalized

    def _options(self, schema: Schema) -> list[Schema]:
        """The alternative schemas of a value."""
        resolved = self._resolved(schema)
        options = resolved.get("anyOf") or resolved.get("oneOf")
        if not options:
            return [resolved]
        return [option for nested in options for option in self._options(nested)]

    def _resolved(self, schema: Schema) -> Schema:
        while isinstance(reference := schema.get("$ref"), str):
            schema = self._definitions.get(reference.removeprefix("#/$defs/"), {})
        return schema


_KIND: Final[Mapping[type, str]] = {dict: "object", list: "array"}


def _is_integral(value: float) -> bool:
    return value.is_integer() and abs(value) < _EXACT


def _wants_integer(options: list[Schema]) -> bool:
    kinds = {option.get("type") for option in options}
    return "integer" in kinds and "number" not in kinds
