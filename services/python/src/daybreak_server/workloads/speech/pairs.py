"""The language pairs that a model's folder lists. The API uses this module to refuse other pairs, so this
module imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daybreak_server.workloads.languages import LanguagePair


def pairs_in(content: Mapping[str, Any]) -> tuple[LanguagePair, ...]:
    """The pairs of a vocabulary, which has the fields ``source``, ``names``, and ``targets`` or ``markers``."""
    source, names = content["source"], content["names"]
    return tuple(
        LanguagePair(source=source, target=code, source_name=names[source], target_name=names[code])
        for code in content.get("targets") or content["markers"]
    )


def pairs_of(folder: Path) -> Sequence[LanguagePair]:
    """The pairs of a folder; none if it cannot be read here, for example because only the groups have it."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("vocabulary")
        if content is None:
            content = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        return pairs_in(content)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ()
