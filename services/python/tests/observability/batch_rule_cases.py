"""When each alert about batches fires, and what must not set it off. See ``rule_cases``."""

from __future__ import annotations

from rule_cases import Case, histogram

_POOL = 'pool="video"'
_BATCHES = f"daybreak_rank_batch_seconds_count{{{_POOL}}}"
_FAILED = f"daybreak_rank_batch_failures_total{{{_POOL}}}"
_REFUSED = f"daybreak_rank_batch_refused_total{{{_POOL}}}"


def _waits(*, short: str, long: str) -> dict[str, str]:
    """``short`` counts the batches in which no item waited for more than 0.1 s. ``long`` counts all batches. In each
    batch that ``short`` does not count, an item waited for 5 to 30 s."""
    name = f"daybreak_rank_batch_wait_seconds_bucket{{{_POOL}, le="
    return histogram(name, fast=("0.1", "5.0"), slow=("30.0", "+Inf"), short=short, long=long)


CASES: dict[str, Case] = {
    "DaybreakItemsRefused": Case(
        series={_BATCHES: "0+60x60", _REFUSED: "0x5 0+10x15 150x60"}, fires=15, quiet=(5, 8, 35)
    ),
    "DaybreakBatchesWait": Case(
        series=_waits(short="0+60x5 300x30 300+60x40", long="0+60x80"), fires=25, quiet=(5, 12, 60)
    ),
    "DaybreakBatchesFail": Case(
        series={_BATCHES: "0+60x80", _FAILED: "0x5 0+6x30 180x60"}, fires=25, quiet=(5, 14, 60)
    ),
}

MORE_CASES: list[tuple[str, str, Case]] = [
    (
        "DaybreakItemsRefused",
        "one caller sends too much at once, and its later requests are accepted",
        Case(series={_BATCHES: "0+60x60", _REFUSED: "0x9 8x60"}, fires=None, quiet=(9, 10, 12, 14, 20)),
    ),
    (
        "DaybreakBatchesWait",
        "one of twenty batches has an item of rare length that waits",
        Case(series=_waits(short="0+57x80", long="0+60x80"), fires=None, quiet=(10, 20, 40, 70)),
    ),
    (
        "DaybreakBatchesWait",
        "a burst fills the line for three minutes",
        Case(
            series=_waits(short="0+60x5 300x3 300+60x60", long="0+60x70"),
            fires=None,
            quiet=(8, 12, 16, 20, 40),
        ),
    ),
    (
        "DaybreakBatchesFail",
        "a few of many texts break the model",
        Case(series={_BATCHES: "0+6000x60", _FAILED: "0+6x60"}, fires=None, quiet=(10, 20, 30, 50)),
    ),
    (
        "DaybreakBatchesFail",
        "the only batch in an hour fails",
        Case(series={_BATCHES: "0x9 1x60", _FAILED: "0x9 1x60"}, fires=None, quiet=(10, 15, 25, 50)),
    ),
]
