"""``daybreak speak``: translate speech while it is spoken."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Annotated

import typer

from daybreak.cli import options
from daybreak.cli.audio import Audio, open_audio
from daybreak.cli.escaping import visible
from daybreak.cli.exit_codes import Exit, report_errors
from daybreak.cli.global_options import global_options
from daybreak.cli.output import Output
from daybreak.errors import DaybreakError
from daybreak.live_session import LiveSession
from daybreak.sync import Client
from daybreak.wire import SessionEvent, SessionEventType

_NO_TEXT = "No text: the model heard no words that it knows."
_MICROPHONE_CLOSES_S = 5.0
"""How long the command waits at its end until the microphone is closed."""


def speak(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]",
            help="A WAV file, or raw samples in a file named *.pcm or *.raw. With -, either of these on stdin.",
            show_default="the microphone",
        ),
    ] = None,
    *,
    to: Annotated[str, typer.Option(metavar="LANGUAGE", help="Language of the text, such as German or de.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="LANGUAGE", help="The language that is spoken.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="The pool to use.", show_default="the only one")] = None,
    rate: Annotated[
        int, typer.Option(help="The sample rate of raw samples and of the microphone, in Hz.")
    ] = 16_000,
    encoding: Annotated[str, typer.Option(help="The format of raw samples: pcm16 or float32.")] = "pcm16",
    latency: Annotated[
        int, typer.Option(metavar="N", help="A larger latency multiplier gives better text, but later.")
    ] = 1,
    fast: Annotated[
        bool, typer.Option("--fast", help="Send a file as fast as the model takes it, not in real time.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Translate speech while it is spoken, and print the text as it grows.

    The package's tiny model knows fifty English words, such as colours and shapes. Ctrl-C ends the speech and waits for
    the rest of the text; a second Ctrl-C exits at once.

    Examples:

    $ daybreak speak --to German speech.wav

    $ daybreak speak --to Chinese

    $ arecord -q -t raw -f S16_LE -r 16000 | daybreak speak --to de -
    """
    output = Output(as_json=as_json)
    with report_errors(output):
        stopped = threading.Event()
        audio = open_audio(file, rate=rate, encoding=encoding, stopped=stopped.is_set)
        with global_options(context).client() as client:
            live = client.sessions.open(
                to,
                source=source,
                pool=pool,
                encoding=audio.encoding,
                sample_rate=audio.sample_rate,
                latency_multiplier=latency,
                name="daybreak speak",
            )
            with live:
                output.note(f"{live.id} at {client.url}", style="bold")
                _show_notice(output, client, live.session.pool)
                code = _translate(live, audio, output, stopped, pace=not fast and not audio.live)
    raise typer.Exit(code)


def _show_notice(output: Output, client: Client, pool: str) -> None:
    """Print the notice that the pool has for its users, if there is one."""
    with suppress(
        DaybreakError
    ):  # the notice is optional, and an older server does not list the pool as a model
        if notice := client.models.get(pool).notice:
            output.note(notice, style="yellow")


def _translate(
    live: LiveSession, audio: Audio, output: Output, stopped: threading.Event, *, pace: bool
) -> Exit:
    failures: list[Exception] = []
    sender = threading.Thread(
        target=_send_all, args=(live, audio, stopped, failures), kwargs={"pace": pace}, daemon=True
    )
    sender.start()
    events = live.events()
    printer = Printer(output)
    interrupted = False
    try:
        while True:
            try:
                for event in events:
                    printer.show(event)
                break
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                stopped.set()
                events = live.events()
                live.end()
    finally:
        # If Python exits while the other thread closes the microphone, both call PortAudio, and the command may hang.
        stopped.set()
        if audio.live:
            sender.join(_MICROPHONE_CLOSES_S)
    if failures and not interrupted:
        raise failures[0]
    return printer.exit_code


def _send_all(
    live: LiveSession, audio: Audio, stopped: threading.Event, failures: list[Exception], *, pace: bool
) -> None:
    try:
        for piece in _until(stopped, audio.pieces):
            live.send(piece, pace=pace)
    except (DaybreakError, OSError) as error:
        if not stopped.is_set():
            failures.append(error)
    live.end()


def _until(stopped: threading.Event, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stopped.is_set():
            break
        yield piece
    if isinstance(pieces, Generator):
        pieces.close()  # this closes a microphone


class Printer:
    """Prints the text of a session as it grows, one line for each sentence. With ``--json``, prints each event."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._in_line = self._any_text = False
        self.exit_code = Exit.OK

    def show(self, event: SessionEvent) -> None:
        """Print an event."""
        if self._output.as_json:
            self._output.json(event.to_json())
        match event.type:
            case SessionEventType.TEXT:
                self._show_text(visible(event.text))
            case SessionEventType.SEGMENT if self._in_line:
                self._write("\n")
                self._in_line = False
            case SessionEventType.WAITING | SessionEventType.DEGRADED:
                self._output.note(_explained(event), style="dim")
            case SessionEventType.ENDED:
                self._end(event)

    def _show_text(self, text: str) -> None:
        text = text if self._in_line else text.lstrip()
        self._write(text)
        self._in_line = self._in_line or bool(text)
        self._any_text = self._any_text or bool(text)

    def _end(self, event: SessionEvent) -> None:
        if self._in_line:
            self._write("\n")
        if not self._any_text:
            self._output.note(_NO_TEXT)
        reason = str(event.data.get("reason", ""))
        if reason not in {"finished", "closed"}:
            error = event.data.get("error") or {}
            message = str(error.get("message") or f"the session ended: {reason}")
            self._output.error(message, code=str(error.get("code") or reason))
            self.exit_code = Exit.TASK_FAILED

    def _write(self, text: str) -> None:
        if not self._output.as_json:
            sys.stdout.write(text)
            sys.stdout.flush()


def _explained(event: SessionEvent) -> str:
    if event.type is SessionEventType.WAITING:
        return f"waiting for a group: {event.data.get('reason', '')}"
    lag, multiplier = event.data.get("lag_ms", "?"), event.data.get("latency_multiplier", "?")
    return f"the model works in turns of {multiplier} blocks from now on (lag of its group: {lag} ms)"
