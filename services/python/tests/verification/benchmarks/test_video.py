"""The arithmetic of the video benchmark: tasks compared with their baselines, and the cost of each preview."""

from __future__ import annotations

from verification.benchmarks.video import rows
from verification.benchmarks.video.subject import Timed


def timed(wall_s: float, run_s: float, **events: int) -> Timed:
    return Timed(wall_s=wall_s, run_s=run_s, sha256="", events=events)


def test_a_task_is_compared_with_its_own_pair() -> None:
    """Only the difference between a task and its own bare run counts, because a slow machine slows down both runs."""
    bare = [10.0, 12.0, 11.0]
    wall, run, baseline = rows.beside_bare(bare, [timed(10.1, 10.05), timed(12.1, 12.05), timed(11.2, 11.05)])
    assert (wall.value, wall.baseline, wall.held) == (11.2, 11.0, True)
    assert "100 ms (0.91%); allowed: 160 ms" in wall.note
    assert run.held is True
    assert baseline.spread == (10.0, 12.0)


def test_more_than_one_percent_and_fifty_milliseconds_is_a_miss() -> None:
    """The row shows the miss."""
    wall, *_ = rows.beside_bare([10.0] * 3, [timed(10.2, 10.1)] * 3)
    assert wall.held is False


def test_the_note_has_the_cost_of_each_preview() -> None:
    """The cost is the difference between the times, divided by the number of previews."""
    plain = [timed(4.1, 4.0)] * 3
    (row,) = rows.cost_of("previews", "preview", plain, [timed(4.5, 4.4, preview=40)] * 3)
    assert row.note == "40 previews change the time by +10.0%, 10.0 ms each"
