"""The history of the batches of a scheduler."""

from __future__ import annotations

from daybreak_server.batching.iterations.history import BatchHistory, BatchRecord, Phase


def ran(number: int, *, started: float, audio_s: float, tokens: int) -> BatchRecord[str]:
    return BatchRecord(
        number=number,
        phase=Phase.MIXED,
        prefill=("a",),
        blocks=(1,),
        unfinished=(),
        decode=("b",),
        audio_s=audio_s,
        tokens=tokens,
        waited_s=0.0,
        started=started,
        seconds=0.5,
    )


def test_rates_are_means_over_the_last_seconds() -> None:
    history: BatchHistory[str] = BatchHistory()
    assert history.rates(100.0) == (0.0, 0.0, 0.0)
    for number in range(20):  # one batch a second, which ends at x.5
        history.add(ran(number, started=float(number), audio_s=2.0, tokens=3))
    assert history.rates(19.6, window_s=10.0) == (2.0, 3.0, 1.0)
    assert history.rates(24.6, window_s=10.0) == (1.0, 1.5, 0.5)  # half of the window had no batch
    assert history.rates(40.0, window_s=10.0) == (0.0, 0.0, 0.0)
