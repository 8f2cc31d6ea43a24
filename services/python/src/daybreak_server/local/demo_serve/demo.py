"""The four parts of the demo: a model wakes, two workers share requests, a worker dies, and a fallback answers."""

from __future__ import annotations

import shutil
import signal
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import httpx2

from daybreak_server.local.child_up import DemoError
from daybreak_server.local.console import say
from daybreak_server.local.demo_serve.chat import WAIT_S, Chat, ChatAnswer, Stream
from daybreak_server.local.demo_serve.fleet import Workers, fleet
from daybreak_server.local.free_ports import free_port
from daybreak_server.local.llama_cpp.install import InstallError, LlamaCpp, install
from daybreak_server.settings.tree import Settings

MODEL, SECOND = "smol", "second"
WORKERS = ("worker-1", "worker-2")
QUESTION = "Why is the sky blue?"
QUESTIONS = tuple(
    f"Tell me about {thing}."
    for thing in ("the sea", "bread", "snow", "music", "bees", "iron", "tea", "maps")
)
_CAPACITY = 4
_MEMORY = 400 << 20
_WIDTH = 96
_ENGINE_ARGS = {"ctx_size": 1024, "parallel": _CAPACITY}


def run_demo(settings: Settings, *, llama: Path | None = None) -> int:
    """Run the demo, and stop everything that it started. :returns: the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    clock = Clock()
    try:
        try:
            server = install(llama or settings.data_dir / "llama", say=say)
        except InstallError as exc:
            raise DemoError(str(exc)) from exc
        clock.lap("install")
        say("Daybreak demo: a chat model of 135 million parameters on two workers, with llama.cpp and no GPU")
        with fleet(_demo_settings(settings, server)) as (url, workers):
            chat = Chat(url)
            try:
                _show(chat, url, workers, server, clock)
            finally:
                chat.close()
        clock.lap("stop")
        _print_summary(clock)
    except DemoError as exc:
        say(f"the demo failed: {exc}")
        return 1
    except httpx2.HTTPError as exc:
        say(f"the demo failed: the gateway cannot be reached ({type(exc).__name__}: {exc})")
        return 1
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return 130
    return 0


class Clock:
    """Measures how long each part of the demo takes."""

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Store the duration of the part that has just ended."""
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _demo_settings(settings: Settings, server: LlamaCpp) -> Settings:
    """Settings for a separate fleet: the demo must not touch a store or workers that the user's settings name."""
    engine = {"command": server.command, "capacity": _CAPACITY, "stop_s": 2}
    workers = {"heartbeat_s": 0.2, "lease_s": 5, "drain_s": 5, "engines": {"llama.cpp": engine}}
    folder = settings.data_dir / "demo-serve"
    shutil.rmtree(folder / "valkey", ignore_errors=True)  # models of an earlier run
    http = {"host": "127.0.0.1", "port": free_port()}
    return Settings.model_validate({"data_dir": str(folder), "http": http, "workers": workers})


def _show(chat: Chat, url: str, workers: Workers, server: LlamaCpp, clock: Clock) -> None:
    for worker in WORKERS:
        workers.start(worker)
    _wait(lambda: len(chat.workers()) == len(WORKERS), "both workers to register", workers)
    say(f"gateway at {url}; {' and '.join(WORKERS)} have registered")
    clock.lap("start the processes")
    _show_wake(chat, server, clock)
    _show_balance(chat, workers, clock)
    _show_death(chat, workers, clock)
    _show_fallback(chat, server, workers, clock)


def _show_wake(chat: Chat, server: LlamaCpp, clock: Clock) -> None:
    say("\n1 · A model that runs nowhere: its first request starts it, and waits")
    _register(chat, MODEL, server, replicas=2, target_load=_CAPACITY)
    say(
        f'$ curl -N …/v1/chat/completions -d \'{{"model": "{MODEL}", "stream": true, "messages": [… "{QUESTION}"]}}\''
    )
    began = time.monotonic()
    with WakeWatch(chat, MODEL) as wake:
        stream = chat.stream(MODEL, QUESTION, tokens=40)
        first_s = time.monotonic() - began
    wake.print()
    _print_words(stream.words())
    if not stream.complete:
        raise DemoError("the answer broke off; see the logs in demo-serve/logs of the data folder")
    say(
        f"  first word after {first_s:.1f} s, last one after {time.monotonic() - began:.1f} s, by {stream.worker}"
    )
    clock.lap("wake and first answer")


def _show_balance(chat: Chat, workers: Workers, clock: Clock) -> None:
    say(f"\n2 · Eight requests at once: more than the {_CAPACITY} that one replica should have")
    began = time.monotonic()
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = pool.map(lambda question: chat.ask(MODEL, question, tokens=16), QUESTIONS)
        _wait(lambda: chat.model(MODEL)["ready"] == len(WORKERS), "the second replica", workers)
        say(f"  they start the second replica, which is ready after {time.monotonic() - began:.1f} s")
        say(f"  answered: {_shares(answers)}")
        began = time.monotonic()
        balanced = list(pool.map(lambda question: chat.ask(MODEL, question, tokens=16), QUESTIONS))
    say("  the same eight again:")
    _print_table(balanced, time.monotonic() - began)
    clock.lap("balance")


def _show_death(chat: Chat, workers: Workers, clock: Clock) -> None:
    victim, survivor = WORKERS
    say(f"\n3 · {victim} is killed in the middle of eight requests (SIGKILL)")
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        streams = _streams_of_both(chat)
        streamed = [pool.submit(stream.rest) for stream in streams]
        _wait(lambda: all(stream.tokens > 2 for stream in streams), "the first words of each answer", workers)
        whole = _requests_until_at(victim, chat, workers, pool)
        moved = chat.requests_at(victim) - sum(stream.worker == victim for stream in streams)
        began = time.monotonic()
        workers.kill(victim)
        answers = [future.result() for future in whole]
        taken_s = time.monotonic() - began
        begun = [future.result() for future in streamed]
    say(f"  6 requests whose answer had not begun: all answered within {taken_s:.1f} s: {_shares(answers)}")
    say(f"  {moved} of them were on {victim}; the gateway sent them to {survivor}")
    for answer in begun:
        how = (
            "complete"
            if answer.complete
            else "broke off when its worker was killed, and the client can tell that the rest is missing"
        )
        say(f"  1 answer that had begun on {answer.worker}: {how} ({answer.tokens} tokens)")
    clock.lap("death of a worker")


def _streams_of_both(chat: Chat) -> list[Stream]:
    """Open streams until each worker has begun to answer one. More than two are needed if a worker is busy."""
    streams: list[Stream] = []
    while {stream.worker for stream in streams} != set(WORKERS):
        if len(streams) == len(QUESTIONS):
            began = f"{len(streams)} answers began on {streams[0].worker}, and none on the other worker"
            raise DemoError(f"{began}; see the logs in demo-serve/logs of the data folder")
        streams.append(chat.stream(MODEL, QUESTIONS[len(streams)], tokens=120, ignore_eos=True))
    return streams


def _requests_until_at(victim: str, chat: Chat, workers: Workers, pool: Executor) -> list[Future[ChatAnswer]]:
    """Ask six questions at once, again and again, until the victim works on one of them and on a stream."""
    while True:
        requests = [pool.submit(chat.ask, MODEL, question, tokens=20) for question in QUESTIONS[2:]]
        while not all(future.done() for future in requests):
            workers.check()
            if chat.requests_at(victim) >= 2:
                return requests
            time.sleep(0.02)


def _show_fallback(chat: Chat, server: LlamaCpp, workers: Workers, clock: Clock) -> None:
    say(f"\n4 · A fast answer while another model wakes: {SECOND} has the fallback {MODEL}")
    _register(chat, SECOND, server, fallback=MODEL)
    began = time.monotonic()
    answer = chat.ask(SECOND, QUESTION, tokens=16)
    say(
        f"  {answer.seconds:4.1f} s  model {SECOND!r} was asked, and {answer.model!r} answered; {SECOND!r} starts"
    )
    if answer.model != MODEL:
        raise DemoError(f"{answer.model} answered, and not the fallback")
    _wait(lambda: chat.model(SECOND)["state"] == "ready", f"{SECOND} to be ready", workers)
    say(f"  {time.monotonic() - began:4.1f} s  {SECOND!r} is ready")
    answer = chat.ask(SECOND, QUESTION, tokens=16)
    say(f"  {time.monotonic() - began:4.1f} s  {SECOND!r} was asked, and {answer.model!r} answered")
    clock.lap("fallback")


def _register(chat: Chat, alias: str, server: LlamaCpp, **options: object) -> None:
    chat.register(
        alias=alias,
        source=str(server.model),
        engine="llama.cpp",
        args=_ENGINE_ARGS,
        memory_bytes=_MEMORY,
        min_replicas=0,
        **options,
    )
    shown = ", ".join(f"{name} {value}" for name, value in options.items())
    say(f"  registered: {alias} (SmolLM2-135M, llama.cpp), min_replicas 0, {shown}")


class WakeWatch:
    """Watches the states of a model while a request waits for the model. A context manager."""

    def __init__(self, chat: Chat, alias: str) -> None:
        self._chat = chat
        self._alias = alias
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._states: list[tuple[str, float]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> WakeWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def print(self) -> None:
        """Print each state except ``ready``, and how long the model was in it."""
        end = time.monotonic() - self._began
        for (state, since), (_, until) in zip(self._states, [*self._states[1:], ("", end)], strict=True):
            if state != "ready":
                say(f"  {until - since:4.1f} s  {state}")

    def _run(self) -> None:
        while True:
            state = str(self._chat.model(self._alias)["state"])
            if not self._states or self._states[-1][0] != state:
                self._states.append((state, time.monotonic() - self._began))
            if self._stopping.wait(0.03):
                return


def _wait(condition: Callable[[], bool], what: str, workers: Workers) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        workers.check()
        if time.monotonic() > end:
            raise DemoError(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.05)


def _shares(answers: Iterable[ChatAnswer]) -> str:
    """How many answers each worker gave, for example ``worker-1 6, worker-2 2``."""
    shares = Counter(answer.worker for answer in answers)
    return ", ".join(f"{worker} {count}" for worker, count in sorted(shares.items()))


def _print_table(answers: list[ChatAnswer], seconds: float) -> None:
    say("  worker      requests   tokens   tokens/s")
    rows: Mapping[str, list[ChatAnswer]] = {
        worker: [answer for answer in answers if answer.worker == worker] for worker in WORKERS
    }
    for name, some in [*rows.items(), ("both", answers)]:
        tokens = sum(answer.tokens for answer in some)
        say(f"  {name:<10} {len(some):>9} {tokens:>8} {tokens / seconds:>10.1f}")


def _print_words(words: Iterator[str]) -> None:
    """Print an answer: on a terminal word by word, elsewhere in whole lines."""
    if not sys.stdout.isatty():
        for line in textwrap.wrap("".join(words).strip(), _WIDTH):
            say(f"  > {line}")
        return
    sys.stdout.write("  > ")
    column = 0
    for word in words:
        if column + len(word) > _WIDTH and word.startswith(" "):
            sys.stdout.write("\n  >")
            column = 0
        sys.stdout.write(word.replace("\n", " "))
        sys.stdout.flush()
        column += len(word)
    say("")


def _print_summary(clock: Clock) -> None:
    say("\ntime spent")
    for name, seconds in [*clock.laps.items(), ("total", time.monotonic() - clock.began)]:
        say(f"  {name:<22}{seconds:6.1f} s")
    say(
        "\nwhat to try next\n"
        "  daybreakd gateway --embedded                       a gateway of your own\n"
        "  daybreakd worker --manager-url http://HOST:8000    on each machine with vLLM, llama.cpp or SGLang\n"
        "  docs/09-workers.md                                 how to register models, and what happens to a request"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
