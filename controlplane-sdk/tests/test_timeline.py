"""How the command turns events into words, and other formatting that needs no terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daybreak.cli.exit_codes import UsageError
from daybreak.cli.generate import parse_values
from daybreak.cli.output import age, seconds, size
from daybreak.cli.summary import default_path, main_artifact
from daybreak.cli.timeline import Timeline
from daybreak.wire import Event, Task

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def event(kind: str, at_s: float, event_id: str | None = None, **data: Any) -> Event:
    body = {
        "task": "video_01",
        "type": kind,
        "at": START + timedelta(seconds=at_s),
        "id": event_id,
        "data": data,
    }
    return Event.model_validate(body)


def test_the_time_of_each_phase_is_measured(make: Any) -> None:
    """The timeline measures the time in the queue, in each phase of the wake and of the work, and before a retry."""
    timeline = Timeline.of(Task.model_validate(make.task(queue={"position": 2, "eta_s": 9.0})))
    assert timeline.line == "queued, number 2 in line · about 9.0 s left"
    for each in (
        event("queued", 0.0, "1-0", position=2),
        event("wake", 1.0, phase="pods", eta_s=8.0),
        event("wake", 4.0, phase="model"),
        event("started", 6.0, "2-0", group="g-1", ranks=2),
        event("progress", 7.0, "3-0", phase="encode_prompt", fraction=0.1),
        event("progress", 8.0, "3-1", phase="denoise", fraction=0.3, step=1, steps=4, eta_s=3.0),
        event("retrying", 9.0, "4-0", reason="lease_lost", strikes=1, delay_s=2.0),
        event("started", 11.0, "5-0", group="g-2", resumed_from_step=1),
        event("progress", 14.0, "6-0", phase="denoise", fraction=0.9, step=4, steps=4),
        event("progress", 15.0, "6-1", phase="upload", fraction=1.0),
        event("succeeded", 15.5, "7-0"),
    ):
        timeline.update(each)
    assert {name: took for name, took in timeline.spent.items() if took} == {
        "queue": 1.0,
        "pods": 3.0,
        "model": 2.0,
        "encode_prompt": 1.0,
        "denoise": 5.0,
        "retry": 2.0,
        "upload": 1.5,
    }
    assert {("in the queue", 1.0), ("getting machines", 3.0), ("waiting to retry", 2.0)} <= set(
        timeline.phases()
    )
    assert (timeline.fraction, timeline.last_id, timeline.state) == (1.0, "7-0", "succeeded")


def test_a_problem_of_the_pool_is_logged_once() -> None:
    """Each problem is printed once, and the bar still shows the phase."""
    timeline = Timeline()
    assert timeline.update(event("wake", 0, phase="warm_up")) is None
    lines = [
        timeline.update(event("wake", at, phase="warm_up", message=why))
        for at, why in enumerate(["no such bucket", "no such bucket", "the key is wrong"], start=1)
    ]
    assert lines == ["problem: no such bucket", None, "problem: the key is wrong"]
    assert timeline.line == "waking: warming up"
    assert timeline.update(event("wake", 9, phase="ready")) is None


def test_starts_retries_and_logs_are_printed() -> None:
    """Starts, retries and the task's own log are printed; progress only moves the bar."""
    timeline = Timeline()
    assert (
        timeline.update(event("progress", 0, phase="denoise", fraction=0.2, step=1, steps=5, eta_s=4.0))
        is None
    )
    assert timeline.line == "denoising · step 1/5 · about 4.0 s left"
    assert timeline.update(event("started", 1, group="g-1", ranks=2)) == "started on g-1, 2 ranks"
    line = timeline.update(event("retrying", 2, reason="stalled", message="step 7", delay_s=1.5))
    assert line == "retrying after a stalled step: step 7 (in 1.5 s)"
    assert timeline.update(event("log", 3, level="warning", message="hot")) == "warning: hot"


def test_a_reset_restores_the_state_from_a_snapshot(make: Any) -> None:
    """After a `reset` event, the bar shows the task that the event contains. An invalid task changes nothing."""
    timeline = Timeline()
    progress = {"fraction": 0.5, "step": 10, "steps": 20}
    line = timeline.update(
        event("reset", 0, task=make.task(state="running", phase="denoise", progress=progress))
    )
    assert line == "older events were deleted; following from here"
    assert (timeline.line, timeline.fraction) == ("denoising · step 10/20", 0.5)
    assert timeline.update(event("reset", 0, task="?")) == "some events were lost; following from here"


def test_the_main_artifact_is_the_video(make: Any) -> None:
    """The video is preferred to the poster, and the poster to `task.json`."""
    files = [("task.json", "application/json"), ("poster.webp", "image/webp"), ("video.mp4", "video/mp4")]
    kept = [{"name": n, "content_type": c, "size_bytes": 1, "sha256": "0", "url": "/"} for n, c in files]
    task = Task.model_validate(make.task(artifacts=kept))
    found = main_artifact(task)
    assert found is not None
    assert found.name == "video.mp4"
    assert str(default_path(task, found)) == "out/video_01.mp4"
    assert main_artifact(Task.model_validate(make.task())) is None


def test_values_are_json_or_text() -> None:
    """`steps=5` is a number, `message=hi` text and `flag=true` a boolean. A word without `=` is rejected."""
    assert parse_values(["steps=5", "message=hi there", "flag=true", "a=b=c"]) == {
        "steps": 5,
        "message": "hi there",
        "flag": True,
        "a": "b=c",
    }
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_values(["steps"])


def test_durations_sizes_and_ages_are_short() -> None:
    shown = [seconds(v) for v in (None, 0.421, 12.34, 245, 7380)]
    assert shown == [
        "–",
        "0.42 s",
        "12.3 s",
        "4 min 05 s",
        "2 h 03 min",
    ]
    assert [size(v) for v in (831, 10234, 5 << 20, 3 << 30)] == ["831 B", "10.0 KiB", "5.0 MiB", "3.0 GiB"]
    assert age(START, now=START + timedelta(minutes=5)) == "5 min ago"
