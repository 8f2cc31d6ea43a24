"""Turns the names that workloads choose for artifacts into names that are valid in every file system, URL and header.

A name keeps the letters, accents, joiners and digits of every script. It also keeps dots, underscores, hyphens, and a
short extension. A hyphen replaces each run of other characters, such as spaces and separators. Dots and hyphens at both
ends are removed, names that Windows reserves get the prefix ``file-``, and names longer than ``NAME_MAX_BYTES`` are
cut.

Keys in the blob store are pure ASCII, because S3 servers differ in how they treat keys with other characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from itertools import groupby
from pathlib import PurePosixPath
from urllib.parse import quote

from daybreak_server.domain.text import cut

NAME_MAX_BYTES = 180
"""The longest artifact name. File systems allow 255 bytes; clients need the rest to name their temporary files."""
_ENDING_MAX_BYTES = 20
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners, which Persian and Hindi spelling needs. Other format characters could only deceive."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*")


def artifact_name(wanted: str) -> str:
    """The name under which a file that the workload calls ``wanted`` is published."""
    text = _cleaned(unicodedata.normalize("NFC", wanted)).rstrip(".-")
    ending = PurePosixPath(text).suffix
    if not ending[1:].isalnum() or len(ending.encode()) > _ENDING_MAX_BYTES:
        ending = ""
    stem = text.removesuffix(ending).strip(".-") or "artifact"
    if _RESERVED.match(stem + ending):
        stem = f"file-{stem}"
    return cut(stem, NAME_MAX_BYTES - len(ending.encode())).rstrip(".-") + ending


def distinct_name(name: str, taken: Collection[str]) -> str:
    """``name``, with a number before its extension if some file system would confuse it with one of ``taken``."""
    used = {_folded(other) for other in taken}
    path, number, found = PurePosixPath(name), 1, name
    while _folded(found) in used:
        number += 1
        mark = f"-{number}{path.suffix}"
        found = cut(path.stem, NAME_MAX_BYTES - len(mark.encode())) + mark
    return found


def key_segment(name: str) -> str:
    """The segment of an object's key for ``name``: the name itself if it is plain ASCII, or else a digest of the name,
    followed by the name's extension if the extension is plain ASCII."""
    if _PLAIN.fullmatch(name):
        return name
    ending = PurePosixPath(name).suffix
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return digest + (ending if _PLAIN.fullmatch(ending) else "")


def attachment(filename: str) -> str:
    """The ``Content-Disposition`` with which a browser saves a file as ``filename`` (RFC 6266, RFC 5987)."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{exact}'


def is_content_type(text: str) -> bool:
    """Whether ``text`` is valid in a ``Content-Type`` header."""
    return len(text) <= 200 and _TYPE.fullmatch(text) is not None


def _cleaned(text: str) -> str:
    parts = [("".join(run) if kept else "-") for kept, run in groupby(text, key=_is_kept)]
    return "".join(parts)


def _is_kept(char: str) -> bool:
    return char in "._-" or char in _JOINERS or unicodedata.category(char)[0] in "LMN"


def _folded(name: str) -> str:
    """Return the same text for any two names that some file system treats as equal."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
