"""A range of ports, written as ``20100-20199``, or as one port."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def ports_of(text: str) -> range:
    """The ports of a range. :raises ValueError: if it is no range of ports."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("must be a port or a range of ports, such as 20100-20199")
    first = int(found[1])
    last = int(found[2] or first)
    if not 1 <= first <= last <= 65_535:
        raise ValueError("must begin at 1 or above, end at 65535 or below, and end where it begins or later")
    return range(first, last + 1)


def _checked(text: str) -> str:
    ports_of(text)
    return text


PortRange = Annotated[str, AfterValidator(_checked)]
