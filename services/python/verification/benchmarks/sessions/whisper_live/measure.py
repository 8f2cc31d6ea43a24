"""Lets 1, 2, 4 and 8 clients speak at the same time to each server, and reports how late their text is."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daybreak import AsyncClient
from daybreak_server.batching.iterations.lag import percentile
from daybreak_server.cli.sessions.evaluation import speeches, user
from daybreak_server.cli.sessions.evaluation.speeches import RecordedSpeech
from verification.benchmarks.sessions.whisper_live import client, servers
from verification.results import Report, Row

NAME = "sessions-whisper-live"
CLIENTS, QUICK_CLIENTS = (1, 2, 4, 8), (1, 2)
SPEECH_S, QUICK_SPEECH_S = 20.0, 5.0
APART_S = 0.3
TARGET = "en"
ABOUT = """Each client speaks at least {speech_s:g} s of English in real time, in pieces of 100 ms, and reads the \
transcription. *Lag*: each text covers the audio up to some point. Its lag is the time from the speaking of that \
point to the arrival of the text. The server says which audio a text covers. For text that never comes, the lag \
runs until the client stops waiting; a client that was refused has no lags. *WhisperLive*: version {version}, its \
faster-whisper backend on the CPU, one model for all clients, with its own settings except voice activity \
detection, which is off; with *batched*, it computes the audio of several clients in one batch. Its model is Whisper \
base, with 74 million parameters, for any words. *Daybreak*: `daybreakd up` with the tiny speech model, with 1.4 \
million parameters, for some fifty words. So do not compare the lags of the two servers. Compare how each server's \
lag grows with the number of its clients \
(*ratio*)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the clients of one run saw."""

    server: str
    clients: int
    lags_s: Sequence[float]
    complete: int
    """How many clients got all of their text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many clients, and how long each speaks."""

    clients: Sequence[int] = CLIENTS
    speech_s: float = SPEECH_S

    def speeches(self, clients: int) -> list[RecordedSpeech]:
        """What the clients say."""
        found = [
            speeches.of_clips(TARGET, at_least_s=self.speech_s, user=number) for number in range(clients)
        ]
        return [speech for speech in found if speech is not None]


QUICK = Plan(clients=QUICK_CLIENTS, speech_s=QUICK_SPEECH_S)
Talk = Callable[[RecordedSpeech, str, float], Awaitable[tuple[Sequence[float], bool]]]
"""Waits some seconds and speaks. Returns the lags, and whether all text came."""


def measure(python: Path, plan: Plan) -> Report:
    """Measure both servers. :raises RuntimeError: if WhisperLive does not start."""
    report = Report(
        NAME,
        title="Streaming sessions beside WhisperLive",
        about=ABOUT.format(speech_s=plan.speech_s, version=servers.version(python)),
    )
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="whisper-live-") as place:
        with servers.daybreak(Path(place)) as url:
            results += asyncio.run(_daybreak(url, plan))
        for name, batched in (("WhisperLive", False), ("WhisperLive, batched", True)):
            for clients in plan.clients:
                folder = Path(place) / f"{clients}{batched}"
                with servers.whisper_live(python, folder, batched=batched) as port:
                    results.append(asyncio.run(_whisper_live(name, port, plan, clients)))
    for result in results:
        alone = next(each for each in results if each.server == result.server and each.clients == 1)
        report.add(_row(result, alone))
    return report


async def _daybreak(url: str, plan: Plan) -> list[Result]:
    async with AsyncClient(url) as http:

        async def talk(speech: RecordedSpeech, name: str, starts_s: float) -> tuple[Sequence[float], bool]:
            await asyncio.sleep(starts_s)
            received = await user.talk(http, speech, pool=servers.POOL, target=TARGET, name=name)
            return received.lags_s, received.error is None

        await talk(plan.speeches(1)[0], "warm-up", 0.0)
        return [await _together("Daybreak", plan, clients, talk) for clients in plan.clients]


async def _whisper_live(name: str, port: int, plan: Plan, clients: int) -> Result:
    async def talk(speech: RecordedSpeech, uid: str, starts_s: float) -> tuple[Sequence[float], bool]:
        await asyncio.sleep(starts_s)
        try:
            received = await client.talk(port, speech, name=uid)
        except client.RefusedError as exc:
            print(f"  {uid}: refused: {exc}", file=sys.stderr)
            return (), False
        print(f"  {uid}: {received.text[-100:]}", file=sys.stderr)
        return received.lags_s, received.complete

    await talk(QUICK.speeches(1)[0], "warm-up", 0.0)
    return await _together(name, plan, clients, talk)


async def _together(server: str, plan: Plan, clients: int, talk: Talk) -> Result:
    """Let clients speak at the same time. They start ``APART_S`` apart: WhisperLive admits few clients a second."""
    talks = [
        talk(speech, f"client {number}", number * APART_S)
        for number, speech in enumerate(plan.speeches(clients))
    ]
    received = await asyncio.gather(*talks)
    lags = [lag for lags, _ in received for lag in lags]
    result = Result(
        server=server, clients=clients, lags_s=lags, complete=sum(complete for _, complete in received)
    )
    print(f"{server}, {clients} clients: lag p95 {percentile(lags, 0.95):.2f} s", file=sys.stderr)
    return result


def _row(result: Result, alone: Result) -> Row:
    is_alone = result is alone
    return Row(
        f"{result.server}, {result.clients} {'client' if is_alone else 'clients'}: lag p95",
        round(percentile(result.lags_s, 0.95), 3),
        "s",
        baseline=None if is_alone else round(percentile(alone.lags_s, 0.95), 3),
        baseline_what="" if is_alone else "one client of this server",
        note=f"p50 {percentile(result.lags_s, 0.5):.2f} s; all text for {result.complete} of {result.clients}",
    )
