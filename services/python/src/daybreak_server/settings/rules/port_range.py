"""A range of ports, written as ``20100-20199``, or as one port."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def ports_of(text: str) -> range:
    """The ports of a range. :raises ValueError: if ``text`` is no range of ports."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("must be a port or a range of ports, such as 20100-20199")
    first = int(found[1])
    last = int(found[2] or first)
    if not 1 <= first <= last <= 65_535:
        raise ValueError("must be between 1 and 65535, and must not end before it begins")
    return range(first, last + 1)


def _checked(text: str) -> str:
    ports_of(text)
    return text


PortRange = Annotated[str, AfterValidator(_checked)]
