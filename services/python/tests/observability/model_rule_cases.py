"""When each alert about models on workers fires, and what must not set it off. See ``rule_cases``."""

from __future__ import annotations

from rule_cases import Case

_MODEL = 'model="chat"'


def _model(*, elapsed: str, failed: str = "0x90", unplaced: str = "0x90") -> dict[str, str]:
    """The series of a model."""
    return {
        f"daybreak_model_wake_elapsed_seconds{{{_MODEL}}}": elapsed,
        f'daybreak_model_replicas{{{_MODEL}, state="failed"}}': failed,
        f'daybreak_model_replicas{{{_MODEL}, state="starting"}}': "1x90",
        f"daybreak_model_unplaced_replicas{{{_MODEL}}}": unplaced,
    }


def _manager(up: dict[str, str], models: str) -> dict[str, str]:
    """For each pod: whether it sees a manager (``up``), and how many models are ready (``models``)."""
    series = {f'daybreak_manager_up{{pod="{pod}"}}': values for pod, values in up.items()}
    return series | {f'daybreak_models{{pod="{pod}", state="ready"}}': models for pod in up}


CASES: dict[str, Case] = {
    "DaybreakModelNotReady": Case(
        series=_model(elapsed="0x5 0+60x25 0x30", unplaced="0x5 1x25 0x30"), fires=24, quiet=(5, 20, 34)
    ),
    "DaybreakReplicasFail": Case(
        series=_model(elapsed="0x90", failed="0x5 1x40 0x40"), fires=23, quiet=(5, 18, 60)
    ),
    "DaybreakManagerAbsent": Case(series=_manager({"a": "1x5 0x15 1x20"}, "2x60"), fires=12, quiet=(5, 26)),
}

MORE_CASES: list[tuple[str, str, Case]] = [
    (
        "DaybreakModelNotReady",
        "the model's replica fails, starts again and fails again: one alert, not two",
        Case(
            series=_model(elapsed="0+60x60", failed="0 0 1 1 1 0 1 1 1 1 0 1 1 1 1 0 1x45"),
            fires=18,
            quiet=(10, 15),
        ),
    ),
    (
        "DaybreakModelNotReady",
        "a large model loads for a quarter of an hour",
        Case(
            series=_model(elapsed="0x5 0+60x15 0x30", unplaced="0x5 1x2 0x60"),
            fires=None,
            quiet=(5, 12, 20, 21, 22, 30),
        ),
    ),
    (
        "DaybreakModelNotReady",
        "a replica is still not ready after 17 minutes",
        Case(series=_model(elapsed="0+60x60"), fires=18, quiet=(10, 15)),
    ),
    (
        "DaybreakReplicasFail",
        "a replica crashes once and starts again",
        Case(series=_model(elapsed="0x90", failed="0x5 1x1 0x60"), fires=None, quiet=(6, 10, 16, 18, 22, 30)),
    ),
    (
        "DaybreakReplicasFail",
        "a replica loads for 7 minutes and fails, again and again",
        Case(
            series=_model(elapsed="0+60x60", failed="0x6 1 0x6 1 0x6 1 0x6 1 0x6 1"), fires=25, quiet=(6, 15)
        ),
    ),
    (
        "DaybreakManagerAbsent",
        "a gateway dies, and the manager of another gateway takes over after six seconds",
        Case(
            series=_manager({"a": "1x9 _x50", "b": "1x9 0 1x50"}, "2x60"),
            fires=None,
            quiet=(9, 10, 11, 12, 20),
        ),
    ),
    (
        "DaybreakManagerAbsent",
        "one gateway has an old view of the registry, and another one has the current view",
        Case(series=_manager({"a": "0x60", "b": "1x60"}, "2x60"), fires=None, quiet=(5, 20, 50)),
    ),
    (
        "DaybreakManagerAbsent",
        "no model is registered",
        Case(series=_manager({"a": "0x60"}, "0x60"), fires=None, quiet=(5, 20, 50)),
    ),
]
