"""Options of pools whose groups embed or rerank texts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

O = TypeVar("O", bound="TextOptions")  # noqa: E741


class TextOptions(BaseModel):
    """The options of a pool. ``model`` and ``batching`` come from the pool's settings of these names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    model: str | None = None
    """The folder of the model."""
    batching: dict[str, Any] = Field(default_factory=dict)
    model_name: str | None = Field(None, min_length=1, max_length=200)
    """What clients call the model; if unset, the name of its folder."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_tokens: int | None = Field(None, ge=1)
    """How many tokens a text may have, including prompts and special tokens; if unset, as many as the model allows."""
    too_long: Literal["error", "cut"] = "error"
    """What happens to a text with more than ``max_tokens`` tokens. ``error``: the request is refused. ``cut``: the text
    is cut, and the answer says which texts were cut."""
    max_inputs: int = Field(2048, ge=1)
    """How many texts a request may have."""

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.model_name or (Path(self.model).name if self.model else "") or "model"


def parse(kind: type[O], options: Mapping[str, Any]) -> O:
    """The options of a pool. :raises pydantic.ValidationError: with a line for each wrong option."""
    return kind.model_validate(dict(options))
