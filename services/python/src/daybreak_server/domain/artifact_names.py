"""Names of artifacts: what a workload asks for becomes a name that every file system, URL and header can take.

A name keeps the letters, marks and digits of every script, and its ending. All else that somebody could trip over goes:
separators, control characters, leading dots, names that Windows reserves, more bytes than a file's name may have. Files
in the object store lie under a key of ASCII only, because not every S3 server treats other keys alike.
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
"""Of an artifact's name: a client's temporary file beside it has a longer one, and file systems take 255."""
_ENDING_MAX_BYTES = 20
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners, which spelling in Persian or Hindi needs; other format characters only deceive."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*")


def artifact_name(wanted: str) -> str:
    """The name under which a file that a workload calls ``wanted`` is published."""
    text = _cleaned(unicodedata.normalize("NFC", wanted)).rstrip(".-")
    ending = PurePosixPath(text).suffix
    if not ending[1:].isalnum() or len(ending.encode()) > _ENDING_MAX_BYTES:
        ending = ""
    stem = text.removesuffix(ending).strip(".-") or "artifact"
    if _RESERVED.match(stem + ending):
        stem = f"file-{stem}"
    return cut(stem, NAME_MAX_BYTES - len(ending.encode())).rstrip(".-") + ending


def distinct_name(name: str, taken: Collection[str]) -> str:
    """``name``, or with a number before its ending where one of ``taken`` is the same to some file system."""
    used = {_folded(other) for other in taken}
    path, number, found = PurePosixPath(name), 1, name
    while _folded(found) in used:
        number += 1
        mark = f"-{number}{path.suffix}"
        found = cut(path.stem, NAME_MAX_BYTES - len(mark.encode())) + mark
    return found


def key_segment(name: str) -> str:
    """The part of an object's key that stands for ``name``: the same where it is plain ASCII, else a digest."""
    if _PLAIN.fullmatch(name):
        return name
    ending = PurePosixPath(name).suffix
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return digest + (ending if _PLAIN.fullmatch(ending) else "")


def artifact_path(task: str, name: str) -> str:
    """The path of the URL at which the API serves an artifact."""
    return f"/v1/tasks/{task}/artifacts/{quote(name, safe='')}"


def attachment(filename: str) -> str:
    """A ``Content-Disposition`` under which a browser saves a file as ``filename`` (RFC 6266, RFC 5987)."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{exact}'


def is_content_type(text: str) -> bool:
    """Whether it can stand in a ``Content-Type`` header."""
    return len(text) <= 200 and _TYPE.fullmatch(text) is not None


def _cleaned(text: str) -> str:
    parts = [("".join(run) if kept else "-") for kept, run in groupby(text, key=_is_kept)]
    return "".join(parts)


def _is_kept(char: str) -> bool:
    return char in "._-" or char in _JOINERS or unicodedata.category(char)[0] in "LMN"


def _folded(name: str) -> str:
    """Alike for names that one file system or another takes for the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
