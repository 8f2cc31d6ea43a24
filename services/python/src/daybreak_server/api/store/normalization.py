"""One rule for all bodies and all workloads, before a model judges them, from its JSON schema alone:

* ``null`` for an optional field means that the field is absent, so that its default holds;
* a number without a fraction is an integer, however it is written (``20.0``, ``2e1``), where an integer is wanted.

So a client need not know whether a model is strict, or how its author spelled *optional*. What is wrong stays as it
is, for the model to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

_EXACT: Final = 1 << 53
"""Beyond it a float stands for several integers: nobody knows which was meant."""
_JUDGED: Final = (float, dict, list)
"""What may have to be changed, or has such a thing in it."""
Schema = Mapping[str, Any]


class Plain:
    """The rule for the bodies of one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._schema: Schema = model.model_json_schema()
        self._definitions: Mapping[str, Schema] = self._schema.get("$defs", {})

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The same body in the plainest form. It is not changed itself."""
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
        return [self._value(item, items) if isinstance(item, _JUDGED) else item for item in value]

    def _object(self, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
        fields: Mapping[str, Schema] = schema.get("properties", {})
        required = schema.get("required", ())
        others = schema.get("additionalProperties")
        if not fields and not isinstance(others, Mapping):
            return value
        found: dict[str, Any] = {}
        for name, item in value.items():
            if item is None and name in fields and name not in required:
                continue
            found[name] = item
            if isinstance(item, _JUDGED) and isinstance(of := fields.get(name, others), Mapping):
                found[name] = self._value(item, of)
        return found

    def _options(self, schema: Schema) -> list[Schema]:
        """The schemas of which a value may fulfil any."""
        here = self._resolved(schema)
        found = here.get("anyOf") or here.get("oneOf")
        return [option for each in found for option in self._options(each)] if found else [here]

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
