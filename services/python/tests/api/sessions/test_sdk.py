"""``client.sessions`` and ``daybreak speak`` against a real server: nothing is lost when connections break."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from session_support import float32, noise, tone

from daybreak import AsyncClient, Client, InvalidInputError, NotFoundError, QuotaError, Retry
from daybreak.cli.output import Output
from daybreak.cli.speak import Printer
from daybreak.errors import ArgumentError
from daybreak.wire import SessionEvent
from testkit.session_memory import MemorySessions, spoken
from testkit.waiting import wait_until
from verification.faults.environment.proxy import TcpProxy

QUICK = Retry(first_s=0.05, max_s=0.2)


def texts(events: list) -> str:
    return "".join(event.text for event in events if event.type == "text")


@pytest.fixture
def client(speech) -> Iterator[Client]:
    with Client(speech.api.url, retry=QUICK) as client:
        yield client


@pytest.fixture
def cuttable(speech) -> Iterator[tuple[TcpProxy, Client]]:
    """A client that reaches the server through a proxy that can break its connections."""
    address = ("127.0.0.1", int(speech.api.url.rpartition(":")[2]))
    with (
        TcpProxy(address) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", retry=QUICK) as client,
    ):
        yield proxy, client


def test_audio_goes_in_and_events_come_out(client):
    audio = noise(3)
    with client.sessions.open("German", name="mine") as live:
        live.send(audio)
        live.end()
        events = list(live)
    assert texts(events) == spoken(audio) == events[-1].text
    assert (events[0].type, events[-1].type) == ("started", "ended")
    shown = client.sessions.get(live.id)
    assert (shown.client, shown.target, shown.end, shown.received_ms) == ("mine", "de", "finished", 3000)


def test_text_is_the_whole_text(client):
    audio = noise(2)
    with client.sessions.open("de") as live:
        live.send(audio)
        assert live.text() == spoken(audio)


def test_a_client_that_sends_all_before_it_reads_does_not_block(client):
    """The client also reads while it sends. If it did not, the server could not send its events."""
    audio = noise(20) * 10
    with client.sessions.open("de") as live:
        live.send(audio)
        assert live.text() == spoken(audio)


def test_cut_connections_lose_no_audio_and_repeat_no_text(speech, cuttable):
    proxy, client = cuttable
    audio = noise(12)
    with client.sessions.open("de") as live:
        for number, first in enumerate(range(0, len(audio), 16_000)):
            live.send(audio[first : first + 16_000])
            if number % 7 == 3:
                wait_until(lambda: proxy.open, 30, "a connection")
                proxy.cut()
        live.end()
        events = list(live)
    assert speech.store.audio(live.id) == audio
    assert texts(events) == spoken(audio)
    assert [e.id for e in events] == sorted({e.id for e in events}, key=lambda i: [*map(int, i.split("-"))])


def test_cut_connections_of_another_rate_lose_no_audio(speech, cuttable):
    proxy, client = cuttable
    samples = float32(tone(6, rate=24_000, hertz=700))
    results = []
    for cut in (False, True):
        with client.sessions.open("de", encoding="float32", sample_rate=24_000) as live:
            for first in range(0, len(samples), 48_000):
                live.send(samples[first : first + 48_000])
                if cut and first % 3 == 0:
                    proxy.cut()
            live.text()
        results.append(speech.store.audio(live.id))
    assert results[0] == results[1]


def test_a_session_continues_at_another_gateway(start_speech):
    """The first gateway stops in the middle of the session. Another gateway with the same store takes its place."""
    store = MemorySessions()
    first = start_speech(store=store)
    audio = noise(4)
    with (
        TcpProxy(("127.0.0.1", int(first.api.url.rpartition(":")[2]))) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", retry=QUICK) as client,
        client.sessions.open("de") as live,
    ):
        live.send(audio[:64_000])
        wait_until(lambda: store.all()[0].received >= 32_000, 30, "audio at the first gateway")
        first.api.server.should_exit = True
        first.api.thread.join(60)
        second = start_speech(store=store)
        proxy._upstream = ("127.0.0.1", int(second.api.url.rpartition(":")[2]))
        live.send(audio[64_000:])
        assert live.text() == spoken(audio)


def test_another_process_continues_a_session(client):
    audio = noise(4)
    with client.sessions.open("de") as live:
        live.send(audio[:64_000])
        events = live.events()
        seen = [event for event, _ in zip(events, range(3), strict=False)]
        wait_until(lambda: client.sessions.get(live.id).received_ms == 2000, 30, "the audio")
        live.close()
        session, last = live.id, seen[-1].id
    with client.sessions.resume(session, after=last) as live:
        assert live.position == 32_000
        live.send(audio[64_000:])
        live.end()
        assert texts(seen) + texts(list(live)) == spoken(audio)


def test_leaving_by_an_exception_closes_the_session(client):
    with pytest.raises(RuntimeError, match="mine"), client.sessions.open("de") as live:
        raise RuntimeError("mine")
    wait_until(lambda: client.sessions.get(live.id).end == "closed", 30, "the end")


def test_paced_audio_takes_as_long_as_it_was_spoken(client):
    audio = noise(1.5)
    with client.sessions.open("de") as live:
        began = time.monotonic()
        for first in range(0, len(audio), 3200):
            live.send(audio[first : first + 3200], pace=True)
        assert time.monotonic() - began >= 1.35
        live.end()


def test_sessions_are_listed_and_closed(client):
    with client.sessions.open("de") as live:
        assert [s.id for s in client.sessions.list()] == [live.id]
        assert client.sessions.close(live.id).end == "closed"
        assert [e.data["reason"] for e in live if e.type == "ended"] == ["closed"]
    assert client.sessions.list(pool="speech") == []


def test_errors_are_raised_where_they_happen(start_speech):
    speech = start_speech(store=MemorySessions(room=1))
    with Client(speech.api.url, retry=Retry(attempts=1)) as client:
        with pytest.raises(InvalidInputError, match="en -> French"):
            client.sessions.open("French")
        with pytest.raises(ArgumentError, match="16001"):
            client.sessions.open("de", sample_rate=16_001)
        with pytest.raises(ArgumentError, match="mp3"):
            client.sessions.open("de", encoding="mp3")
        with pytest.raises(NotFoundError):
            client.sessions.resume("speech_01JD0000000000000000000000")
        with client.sessions.open("de", encoding="float32") as live:
            with pytest.raises(QuotaError) as caught:
                client.sessions.open("de")
            assert caught.value.retry_after_s == 7.0
            live.send(float32([float("nan")]))
            with pytest.raises(InvalidInputError, match="Sample 0"):
                list(live)
            with pytest.raises(InvalidInputError, match="Sample 0"):
                live.send(b"\0\0\0\0")
        wait_until(lambda: client.sessions.get(live.id).end == "closed", 30, "its place to be free")


async def test_a_session_that_cannot_be_connected_to_is_closed(speech):
    """A connection fails, for example, behind a proxy that passes no WebSockets.

    If the client did not close the session, the session would keep its place until its idle timeout.
    """
    rate: Any = 16_000.0  # the server refuses a float, but only when the client connects to the session
    with Client(speech.api.url, retry=QUICK) as client:
        with pytest.raises(InvalidInputError, match="sample_rate"):
            client.sessions.open("de", sample_rate=rate)
        assert client.sessions.list() == []
    async with AsyncClient(speech.api.url, retry=QUICK) as client:
        with pytest.raises(InvalidInputError, match="sample_rate"):
            await client.sessions.open("de", sample_rate=rate)
        assert await client.sessions.list() == []


async def test_the_asyncio_client_does_the_same_through_cuts(speech, cuttable):
    proxy, _ = cuttable
    audio = noise(8)
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", retry=QUICK) as client:
        async with await client.sessions.open("de", name="async") as live:
            for number, first in enumerate(range(0, len(audio), 16_000)):
                await live.send(audio[first : first + 16_000])
                if number in {4, 11}:
                    proxy.cut()
            assert await live.text() == spoken(audio)
        assert (await client.sessions.get(live.id)).end == "finished"
        assert await client.sessions.list() == []
        async with client.sessions.open("de", encoding="float32") as live:
            await live.send(float32([9.0]))
            with pytest.raises(InvalidInputError):
                [event async for event in live]
        resumed = await client.sessions.resume(live.id)
        assert [event.data["reason"] async for event in resumed if event.type == "ended"] == ["closed"]
        await resumed.close()


def test_the_example_of_the_clients_readme_runs(speech, tmp_path, monkeypatch, capsys):
    readme = Path(__file__).parents[5] / "controlplane-sdk" / "README.md"
    (example,) = re.findall(r"```python\n([^`]*client\.sessions[^`]*)```", readme.read_text())
    audio = noise(1)
    wav(tmp_path / "speech.wav", audio)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYBREAK_URL", speech.api.url)
    exec(compile(example, str(readme), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == spoken(audio)


def command(speech, *arguments: str) -> list[str]:
    # Programs that a shell runs in the background ignore SIGINT, and so do their children. So restore Python's handler.
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    run = "from daybreak.cli.main import run; run()"
    return [sys.executable, "-c", f"{restore}; {run}", "--url", speech.api.url, "speak", *arguments]


def speak(speech, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(speech, *arguments), input=stdin, capture_output=True, timeout=120, check=False
    )


def wav(path: Path, audio: bytes, *, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(16_000)
        writer.writeframes(audio)
    return path


def test_the_command_prints_a_line_for_each_sentence(speech, tmp_path):
    audio = noise(3)
    file = wav(tmp_path / "speech.wav", audio)
    for arguments, stdin in (([str(file)], b""), (["-"], audio), (["-"], file.read_bytes())):
        done = speak(speech, "--to", "German", "--fast", *arguments, stdin=stdin)
        lines = done.stdout.decode().splitlines()
        assert done.returncode == 0, done.stderr.decode()
        assert "".join(lines) == spoken(audio)
        assert len(lines) == 2
        assert b"speech_" in done.stderr
        assert done.stderr.count(b"The words of this test mean nothing.") == 1


def test_the_command_writes_events_as_json_and_mixes_channels(speech, tmp_path):
    audio = noise(1)
    stereo = b"".join(audio[i : i + 2] * 2 for i in range(0, len(audio), 2))
    file = wav(tmp_path / "stereo.wav", stereo, channels=2)
    done = speak(speech, "--to", "de", "--fast", "--json", str(file))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["data"]["text"] == spoken(audio)


def test_lines_begin_without_the_space_that_separates_sentences(capsys):
    printer = Printer(Output())
    for number, (kind, text) in enumerate(
        [
            ("text", "Red."),
            ("segment", ""),
            ("text", " "),
            ("text", " Green"),
            ("text", " moves."),
            ("segment", ""),
        ]
    ):
        event = {
            "id": f"{number}",
            "session": "s",
            "type": kind,
            "at": datetime.now(UTC),
            "data": {"text": text},
        }
        printer.show(SessionEvent.model_validate(event))
    assert capsys.readouterr().out == "Red.\nGreen moves.\n"


def test_the_command_says_that_there_was_no_text(capsys):
    event = {
        "id": "1-0",
        "session": "s",
        "type": "ended",
        "at": datetime.now(UTC),
        "data": {"reason": "finished"},
    }
    printer = Printer(Output())
    printer.show(SessionEvent.model_validate(event))
    printed = capsys.readouterr()
    assert (printed.out, printer.exit_code) == ("", 0)
    assert "heard no words that it knows" in " ".join(printed.err.split())


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["--to", "French", "-"], b"\0\0", "en -> French"),
        (["--to", "de", "nothing.wav"], b"", "nothing.wav"),
        (["--to", "de", "-"], b"RIFF\0\0\0\0WAVE", "stdin: The WAV file has no samples"),
        (["--to", "de", "-"], b"", "stdin: The recording is empty"),
        (["--to", "de", "--rate", "9", "-"], b"\0\0", "9 is not a sample rate"),
    ],
)
def test_the_command_says_what_is_wrong(speech, arguments, stdin, message):
    done = speak(speech, *arguments, stdin=stdin)
    assert done.returncode in {2, 10}
    assert message in " ".join(done.stderr.decode().split())


def test_ctrl_c_ends_the_speech_and_prints_the_rest(speech):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command(speech, "--to", "de", "-"), **pipes) as process:
        assert process.stdin is not None
        audio = noise(1)
        feeder = threading.Thread(target=_feed, args=(process.stdin, audio))
        feeder.start()
        wait_until(lambda: [r for r in speech.store.all() if r.received], 60, "audio")
        process.send_signal(2)
        feeder.join(60)
        assert not feeder.is_alive(), "the command still reads its input"
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    record = speech.store.all()[0]
    assert record.end == "finished"
    assert "".join(out.decode().splitlines()) == spoken(speech.store.audio(record.session.id))


def _feed(stdin: io.BufferedWriter, audio: bytes) -> None:
    try:
        while True:
            stdin.write(audio)
            stdin.flush()
    except (BrokenPipeError, ValueError):
        return
