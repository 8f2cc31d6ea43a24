"""Workloads of the kind ``sessions`` for the tests of the API. None of them can serve a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daybreak_server.workloads.base import Group, ModelMissingError, NoInput, WorkloadSpec
from daybreak_server.workloads.languages import LanguagePair


def pairs(options: Mapping[str, Any]) -> Sequence[LanguagePair]:
    """English to German, Chinese and English."""
    targets = {"de": "German", "zh": "Chinese", "en": "English"}
    return [
        LanguagePair(source="en", target=code, source_name="English", target_name=name)
        for code, name in targets.items()
    ]


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="test-sessions",
    kind="sessions",
    implementation="testkit.session_workload:missing",
    pairs=pairs,
    notice=lambda options: "The words of this test mean nothing.",
)


class WithoutModel:
    """A session model whose ``load`` finds no model in the folder."""

    def load(self, group: Group) -> None:
        raise ModelMissingError(f"{group.options['folder']} has no config.json")


WITHOUT_MODEL: WorkloadSpec[NoInput] = WorkloadSpec(
    name="test-sessions-without-model",
    kind="sessions",
    implementation="testkit.session_workload:WithoutModel",
    pairs=pairs,
)
FRENCH: WorkloadSpec[NoInput] = WorkloadSpec(
    name="test-sessions-french",
    kind="sessions",
    implementation="testkit.session_workload:missing",
    pairs=lambda options: [
        LanguagePair(source="en", target="fr", source_name="English", target_name="French")
    ],
)
"""English to French."""
WITHOUT_PAIRS: WorkloadSpec[NoInput] = WorkloadSpec(
    name="test-sessions-any", kind="sessions", implementation="testkit.session_workload:missing"
)
"""This workload lists no pairs, so the API accepts all languages that the API knows."""
