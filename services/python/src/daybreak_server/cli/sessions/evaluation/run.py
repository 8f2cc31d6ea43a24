"""Runs the tests of an evaluation, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from daybreak import AsyncClient
from daybreak.errors import DaybreakError
from daybreak_server.cli.sessions.evaluation import speeches
from daybreak_server.cli.sessions.evaluation.figures import difference, summarize
from daybreak_server.cli.sessions.evaluation.server import EvaluationError, PoolUnderTest
from daybreak_server.cli.sessions.evaluation.speeches import RecordedSpeech
from daybreak_server.cli.sessions.evaluation.user import Talk, talk, undisturbed

BATCH_SIZES = (1, 8, 32)
BATCH_TIMEOUTS_MS = (10.0, 100.0, 300.0)
USER_TESTS = ("health", "single", "stream", "concurrent")
_SETTLE_S = 2.5
"""How long the evaluation waits before it reads the counts of batches, which groups publish each second. It also
waits this long after a change of settings, which groups apply within two seconds."""
_PROGRESS_S = 5.0
_CLIPS_OF = "speech"
"""The workload for which there are recorded clips with reference texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an evaluation."""

    url: str | None = None
    pool: str | None = None
    target: str = "de"
    users: int = 8
    duration_s: float = 30.0
    tests: Sequence[str] = USER_TESTS
    batch_sizes: Sequence[int] = BATCH_SIZES
    """The batch sizes to test. If empty, there are no batch tests."""
    batch_timeouts_ms: Sequence[float] = BATCH_TIMEOUTS_MS


@dataclass(slots=True)
class Evaluation:
    """The results."""

    summary: dict[str, Any]
    talks: dict[str, list[Talk]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return all(test["passed"] for test in self.summary["tests"].values())


async def evaluate(options: Options, say: Callable[[str], None]) -> Evaluation:
    """Run the tests. :raises EvaluationError: if the server cannot be evaluated."""
    try:
        async with (
            AsyncClient(options.url) as client,
            httpx2.AsyncClient(base_url=client.url, timeout=30) as http,
        ):
            pool = await PoolUnderTest.find(client, http, options.pool)
            return await _EvaluationRun(
                replace(options, target=await pool.code_of(options.target)), pool, say
            ).all()
    except (DaybreakError, httpx2.HTTPError) as exc:
        raise EvaluationError(str(exc) or repr(exc)) from exc


class _EvaluationRun:
    def __init__(self, options: Options, pool: PoolUnderTest, say: Callable[[str], None]) -> None:
        self._options = options
        self._pool = pool
        self._say = say
        self._speeches: list[RecordedSpeech] = []
        self._result = Evaluation(
            {
                "server": {"url": pool.client.url, "pool": pool.name, "workload": pool.workload},
                "options": {
                    "target": options.target,
                    "users": options.users,
                    "test_duration_s": options.duration_s,
                },
                "tests": {},
                "batch_tests": [],
            }
        )

    async def all(self) -> Evaluation:
        options, summary = self._options, self._result.summary
        summary["began_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._say(f"pool {self._pool.name} ({self._pool.workload}) at {self._pool.client.url}")
        if "health" in options.tests:
            summary["tests"]["health"] = {"passed": await self._pool.healthy()}
            self._say(f"health: {'ok' if summary['tests']['health']['passed'] else 'failed'}")
        users = [name for name in ("single", "stream", "concurrent") if name in options.tests]
        if users or options.batch_sizes:
            await self._prepare()
        for name in users:
            await self._user_test(name)
        if options.batch_sizes:
            await self._batch_tests()
        return self._result

    async def _prepare(self) -> None:
        """Choose the recordings that the users play, and find the reference text of each recording."""
        target, length_s = self._options.target, self._options.duration_s
        if self._pool.workload == _CLIPS_OF:
            made = [
                speeches.of_clips(target, at_least_s=length_s, user=user) for user in range(speeches.VOICES)
            ]
            self._speeches = [speech for speech in made if speech is not None]
        if self._speeches:
            self._result.summary["audio"] = "the clips of the speech model, with their references"
            return
        self._result.summary["audio"] = "noise; the references are the text of undisturbed single sessions"
        for voice in range(speeches.VOICES):
            audio = speeches.synthetic(length_s=length_s, voice=voice)
            text = await undisturbed(self._pool.client, audio, pool=self._pool.name, target=target)
            self._speeches.append(speeches.with_reference(audio, text))
            self._say(f"reference {voice + 1} of {speeches.VOICES}: {len(text.split())} words")
        await asyncio.sleep(_SETTLE_S)  # so that the next test does not count the batches of the references

    async def _user_test(self, name: str) -> None:
        users = self._options.users if name == "concurrent" else 1
        talks, figures = await self._measure(name, users)
        figures["passed"] = figures["finished"] == users and (name != "stream" or talks[0].grew)
        self._result.talks[name] = talks
        self._result.summary["tests"][name] = figures

    async def _measure(self, name: str, users: int) -> tuple[list[Talk], dict[str, Any]]:
        """Let ``users`` users speak at the same time. Returns their talks, and the figures of the test."""
        before = await self._pool.batches()
        async with asyncio.TaskGroup() as group:
            progress = group.create_task(self._progress(name, users))
            talking = [
                group.create_task(
                    talk(
                        self._pool.client,
                        self._speeches[user % len(self._speeches)],
                        pool=self._pool.name,
                        target=self._options.target,
                        name=f"evaluation: {name} {user + 1}",
                    )
                )
                for user in range(users)
            ]
            talks = [await task for task in talking]
            progress.cancel()
        await asyncio.sleep(_SETTLE_S)
        figures = summarize(talks, difference(await self._pool.batches(), before))
        self._say(
            f"{name}: {figures['sustained']} of {users} sustained, lag p95 {figures['lag_p95_s']} s, "
            f"BLEU {figures['bleu']}, mean batch {figures['mean_batch_size']}"
        )
        return talks, figures

    async def _progress(self, name: str, users: int) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._say(f"{name}: {users} users, {time.monotonic() - began:.0f} s")

    async def _batch_tests(self) -> None:
        """Measure each batch size with each timeout. Then restore the settings of the pool.

        Only the strategy ``request`` has a timeout, so these tests use this strategy.
        """
        options, before = self._options, await self._pool.batching()
        try:
            for size in options.batch_sizes:
                for timeout_ms in options.batch_timeouts_ms:
                    cell = {"max_batch_size": size, "batch_timeout_ms": timeout_ms}
                    await self._pool.configure(strategy="request", **cell)
                    await asyncio.sleep(_SETTLE_S)
                    _, figures = await self._measure(f"batch {size}, {timeout_ms:g} ms", options.users)
                    self._result.summary["batch_tests"].append({**cell, **figures})
        finally:
            await self._pool.configure(**before)
