"""The figures of a test, computed from the observations of its users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from daybreak_server.batching.iterations.lag import percentile
from daybreak_server.cli.sessions.evaluation.latency import stream_laal
from daybreak_server.cli.sessions.evaluation.text_quality import accuracy, bleu
from daybreak_server.cli.sessions.evaluation.user import Talk

LAG_LIMIT_S = 2.0
Batches = Mapping[str, Mapping[int, int]]
"""How many batches there were, by phase and by the number of sessions in a batch."""


def sustained(talk: Talk) -> bool:
    """Whether a session finished, and 95 % of the pieces of its text arrived less than ``LAG_LIMIT_S`` after the audio
    on which they are based."""
    return talk.error is None and bool(talk.lags_s) and percentile(talk.lags_s, 0.95) < LAG_LIMIT_S


def summarize(talks: Sequence[Talk], batches: Batches) -> dict[str, Any]:
    """The figures as JSON. Figures without a measurement are ``None``.

    The real-time factor is the time from the first audio to the end of the session, divided by the length of the
    audio. With a factor of 1, the session takes as long as its audio.
    """
    whole = [talk for talk in talks if talk.error is None]
    lags = [lag for talk in talks for lag in talk.lags_s]
    firsts = [talk.first_text_s for talk in talks if talk.first_text_s is not None]
    return {
        "users": len(talks),
        "finished": len(whole),
        "sustained": sum(map(sustained, talks)),
        "errors": dict(Counter(talk.error for talk in talks if talk.error is not None)),
        "audio_s": round(sum(talk.speech.seconds for talk in talks), 1),
        "words": sum(len(talk.timed) for talk in talks),
        "degraded": sum(talk.degraded for talk in talks),
        "bleu": _rounded(
            bleu([talk.text for talk in whole], [talk.speech.reference for talk in whole]) if whole else None,
            2,
        ),
        "accuracy": _mean(accuracy(talk.text, talk.speech.reference) for talk in whole),
        "stream_laal_s": _mean(_stream_laals(whole, computation_aware=False)),
        "stream_laal_ca_s": _mean(_stream_laals(whole, computation_aware=True)),
        "lag_p50_s": _percentile(lags, 0.5),
        "lag_p95_s": _percentile(lags, 0.95),
        "first_text_p50_s": _percentile(firsts, 0.5),
        "first_text_p95_s": _percentile(firsts, 0.95),
        "rtf": _mean(talk.ended_s / talk.speech.seconds for talk in whole if talk.ended_s is not None),
        "mean_batch_size": _rounded(mean_size(batches), 2),
        "batches": {phase: dict(sizes) for phase, sizes in batches.items()},
    }


def difference(after: Batches, before: Batches) -> dict[str, dict[int, int]]:
    """The batches between two readings of the counters."""
    found = {
        phase: {
            size: count - before.get(phase, {}).get(size, 0)
            for size, count in sizes.items()
            if count > before.get(phase, {}).get(size, 0)
        }
        for phase, sizes in after.items()
    }
    return {phase: sizes for phase, sizes in found.items() if sizes}


def total(groups: Iterable[Batches]) -> dict[str, dict[int, int]]:
    """The batches of several groups, added up."""
    found: dict[str, Counter[int]] = {}
    for group in groups:
        for phase, sizes in group.items():
            found.setdefault(phase, Counter()).update({int(size): count for size, count in sizes.items()})
    return {phase: dict(sorted(sizes.items())) for phase, sizes in found.items()}


def mean_size(batches: Batches) -> float | None:
    """The mean number of sessions in a batch."""
    counts = [(size, count) for sizes in batches.values() for size, count in sizes.items()]
    number = sum(count for _, count in counts)
    return sum(size * count for size, count in counts) / number if number else None


def _stream_laals(talks: Iterable[Talk], *, computation_aware: bool) -> Iterable[float]:
    for talk in talks:
        value = stream_laal(talk.timed, talk.speech.segments, computation_aware=computation_aware)
        if value is not None:
            yield value


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return _rounded(fmean(found)) if found else None


def _percentile(values: Sequence[float], share: float) -> float | None:
    return _rounded(percentile(values, share)) if values else None


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
