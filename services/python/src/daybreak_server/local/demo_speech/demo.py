"""The parts of the demo: two languages at once, and eight users who share the batches of one model."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import FrameType
from typing import Any

import httpx2

from daybreak.errors import DaybreakError
from daybreak.sync import Client
from daybreak_server.domain.pools import GroupState
from daybreak_server.local.child_up import DemoError, Up, running
from daybreak_server.local.console import say
from daybreak_server.local.demo_speech.progress import Progress
from daybreak_server.local.demo_speech.speaker import Arrived, Speaker
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads.speech.clips import clips

POOL = "speech"
LANGUAGES = {"de": "German", "zh": "Chinese"}
USERS = 8
_STAGGER_S = 0.35
"""In the second part, the users start this long after each other, so that their sentences do not begin together."""
_READY_S = 300.0
_PUBLISHED_S = 1.5
"""How long to wait for the sizes of the last batches. Groups publish them each second."""


def run_demo(settings: Settings) -> int:
    """Run all parts of the demo, then stop all processes. :returns: the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        say("Daybreak demo: spoken English becomes German and Chinese text while it is spoken")
        say("The model is tiny: it knows some fifty words, and synthetic voices only.\n")
        with running(_demo_settings(settings)) as up, Client(up.wait_accepting()) as client:
            _wait_ready(client, up)
            start_s = time.monotonic() - began
            _show_languages(client)
            _show_users(client, up)
            shown_s = time.monotonic() - began - start_s
        total_s = time.monotonic() - began
        say(
            f"\ntime spent\n  start-up  {start_s:6.1f} s\n  speech    {shown_s:6.1f} s\n  total     {total_s:6.1f} s"
        )
        _print_next()
    except (DemoError, DaybreakError) as exc:
        say(f"the demo failed: {exc}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return 130
    return 0


def _demo_settings(settings: Settings) -> Settings:
    """Settings of a separate instance, because the demo must not touch the user's pools or data."""
    pool = {"workload": "speech", "device": "cpu"}
    folder = settings.data_dir / "demo-speech"
    return Settings.model_validate({"data_dir": str(folder), "pools": {POOL: pool}, "http": {"port": 0}})


def _wait_ready(client: Client, up: Up) -> None:
    """Wait until a group has loaded the model."""
    end = time.monotonic() + _READY_S
    phase = ""
    while time.monotonic() < end:
        if up.process.poll() is not None:
            raise up.failure()
        shown = client.pool(POOL)
        if shown.wake.phase != phase:
            phase = shown.wake.phase
            say(f"  pool {POOL}: {phase}")
        if any(GroupState(group.state).accepts_tasks for group in shown.groups):
            return
        time.sleep(0.2)
    raise DemoError(f"no group of the pool {POOL} is ready after {_READY_S:g} s")


def _show_languages(client: Client) -> None:
    sentences = clips()
    say(f"\n1 · {len(sentences)} sentences, spoken once to two sessions: English → German, English → Chinese")
    for clip in sentences:
        say(f"      “{clip.spoken}”")
    say("\n   time   lag")
    printing = threading.Lock()

    def printer(language: str) -> Callable[[Arrived, str], None]:
        def show(arrived: Arrived, sentence: str) -> None:
            with printing:
                say(f"  {arrived.at_s:5.2f} s  {arrived.lag_s:4.2f} s  {language:<8} {sentence}")

        return show

    speakers = [Speaker(client, code, sentences, printer(name)) for code, name in LANGUAGES.items()]
    _speak(speakers)
    for speaker in speakers:
        say(f"  {LANGUAGES[speaker.target]}: {_score([speaker])}; {_lags([speaker])}")


def _show_users(client: Client, up: Up) -> None:
    say(f"\n2 · {USERS} users at once, on one model")
    sentences = clips()
    turned = [
        sentences[user % len(sentences) :] + sentences[: user % len(sentences)] for user in range(USERS)
    ]
    codes = list(LANGUAGES)
    before = _batches(client)
    speakers = [Speaker(client, codes[user % len(codes)], turned[user]) for user in range(USERS)]
    _speak(speakers, stagger_s=_STAGGER_S, on_second=Progress(speakers).show)
    time.sleep(_PUBLISHED_S)
    say(f"  {_score(speakers)}; {_lags(speakers)}")
    for phase, sizes in sorted(_batches(client).items()):
        new = sizes - before.get(phase, Counter())
        if new:
            mean = sum(size * count for size, count in new.items()) / new.total()
            say(f"  {phase} batches: {new.total()}, {mean:.1f} sessions on average")
            _print_sizes(new)
    say(
        f"  A step takes milliseconds, so two of {USERS} users rarely need a step at the same time: most batches "
        "have one session."
    )
    say("  docs/11-sessions.md has figures for hundreds of users.")


def _speak(
    speakers: Sequence[Speaker], *, stagger_s: float = 0.0, on_second: Callable[[], None] = lambda: None
) -> None:
    with ThreadPoolExecutor(len(speakers)) as pool:
        futures = []
        for speaker in speakers:
            futures.append(pool.submit(speaker.run))
            time.sleep(stagger_s)
        while wait(futures, timeout=1.0).not_done:
            on_second()
        for future in futures:
            future.result()


def _score(speakers: Sequence[Speaker]) -> str:
    pairs = [
        (written, right)
        for speaker in speakers
        for written, right in zip(speaker.sentences, speaker.expected, strict=False)
    ]
    expected = sum(len(speaker.expected) for speaker in speakers)
    return f"{sum(written == right for written, right in pairs)} of {expected} sentences exactly right"


def _lags(speakers: Sequence[Speaker]) -> str:
    lags = sorted(arrived.lag_s for speaker in speakers for arrived in speaker.arrived)
    if not lags:
        raise DemoError("the model wrote nothing; see the logs in demo-speech/logs of the data folder")
    p95 = lags[min(len(lags) - 1, int(0.95 * len(lags)))]
    return f"text lags {statistics.median(lags):.2f} s (p95 {p95:.2f} s) behind the audio that it is based on"


def _batches(client: Client) -> dict[str, Counter[int]]:
    """For each phase, how many batches of each size the pool's groups have run."""
    response = httpx2.get(f"{client.url}/ray/stats", params={"pool": POOL}, timeout=10)
    response.raise_for_status()
    found: dict[str, Counter[int]] = {}
    for group in response.json()["groups"]:
        for phase, sizes in group["batches"].items():
            counter = found.setdefault(phase, Counter())
            counter.update({int(size): count for size, count in sizes.items()})
    return found


def _print_sizes(sizes: Counter[int]) -> None:
    most = max(sizes.values())
    for size, count in sorted(sizes.items()):
        say(f"    {size:>2} {'█' * max(1, round(40 * count / most))} {count}")


def _print_next() -> None:
    say(
        "\nwhat to try next\n"
        "  DAYBREAK_POOLS='{\"speech\": {}}' make up                    the same model, running until Ctrl-C\n"
        "  .venv/bin/daybreak speak --to German speech.wav           in another terminal\n"
        "  http://127.0.0.1:8000/speak                               with the microphone of a browser\n"
        "  docs/11-sessions.md                                       how it works"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> Any:
    raise KeyboardInterrupt
