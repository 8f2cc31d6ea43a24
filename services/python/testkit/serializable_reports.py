"""A pytest plugin: reports that xdist's workers can send, whatever a test logs or prints.

execnet, which carries them, takes strings only that UTF-8 can encode. Tests of text with lone surrogates log such
text, and without this one of them ends the whole run with an internal error.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


def encodable(value: Any) -> Any:
    """``value`` with the lone surrogates of its strings written as escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case dict():
            return {encodable(key): encodable(item) for key, item in value.items()}
        case list():
            return [encodable(item) for item in value]
        case tuple():
            return tuple(encodable(item) for item in value)
    return value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Clean what pytest made of a report."""
    return encodable((yield))
