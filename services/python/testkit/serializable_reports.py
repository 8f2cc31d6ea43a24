"""A pytest plugin that lets xdist's workers send every test report, whatever a test logs or prints.

execnet, which sends the reports, accepts only strings that UTF-8 can encode. Some tests log lone surrogates. Without
this plugin, one such test would end the whole run with an internal error.
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
    """Escape the lone surrogates in a report that pytest has serialized."""
    return encodable((yield))
