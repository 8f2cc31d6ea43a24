"""``daybreakd demo``: one prompt to an MP4 through every real part, then all that was started is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from daybreak_server.local.console import say
from daybreak_server.settings.tree import PoolSettings, Settings, child_environment

PROMPT = "a red circle moving left"
SEED = 7
POOL = "video"
RANKS = 2
_START_S = 600.0
_STOP_S = 90.0
_UP = """
import sys, pathlib
from daybreak_server.local.instance import read_settings
from daybreak_server.local.up import run_up
sys.exit(run_up(read_settings(pathlib.Path(sys.argv[1]))))
"""
_DAYBREAK = "from daybreak.cli.main import run; run()"


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def run_demo(settings: Settings) -> int:
    """Start, submit by the command ``daybreak``, show each step, leave the files, stop. The exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        settings = _own(settings)
        say(f'Daybreak demo: "{PROMPT}", with a group of {settings.pools[POOL].ranks} ranks on this machine')
        with _running(settings) as up:
            told = _generate(up)
            video = Path(str(told["file"]))
            sheet = video.with_suffix(".png")
            _draw(video, sheet)
        _next(video, sheet, told, taken_s=up.taken_s, total_s=time.monotonic() - began)
    except DemoError as exc:
        say(f"the demo failed: {exc}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything that was started is stopped")
        return 130
    return 0


def _own(settings: Settings) -> Settings:
    """The user's settings with data, port and group of the demo's own, so that it disturbs no `make up`."""
    pool = settings.pools.get(POOL, PoolSettings())
    pool = pool.model_copy(update={"groups": 1, "ranks": max(pool.ranks, RANKS)})
    folder = settings.data_dir / "demo"
    given = settings.model_dump(mode="json", exclude_unset=True)
    given |= {"data_dir": str(folder), "pools": {POOL: pool.model_dump(mode="json")}}
    given["http"] = {**given.get("http", {}), "port": 0}
    return Settings.model_validate(given)


class Up:
    """`daybreakd up` in a process of its own, in a session of its own: a Ctrl-C reaches the demo alone."""

    def __init__(self, config: Path, state: Path) -> None:
        self._state = state
        self._began = time.monotonic()
        self._quiet = threading.Event()
        self._lines: list[str] = []
        self.taken_s = 0.0
        """Seconds until tasks were taken."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _UP, str(config)],
            env=child_environment({}),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.rstrip())
            if not self._quiet.is_set():
                say(f"  {line.rstrip()}")

    def wait_taking(self) -> str:
        """Wait until tasks are taken. The URL. From then on its lines are kept back: the bar tells more."""
        end = self._began + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise self.failure()
            if self._state.exists():
                self._quiet.set()
                self.taken_s = time.monotonic() - self._began
                return str(json.loads(self._state.read_text(encoding="utf-8"))["url"])
            time.sleep(0.05)
        raise DemoError(f"no task was taken after {_START_S:g} s; see {self._state.parent / 'logs'}")

    def failure(self) -> DemoError:
        """It has ended by itself: why, in its own words."""
        self._reader.join(5)
        why = [line for line in self._lines if line.startswith("cannot start")] or self._lines[-1:]
        return DemoError(" ".join(why) or f"Daybreak ended with exit code {self.process.returncode}")

    def stop(self) -> None:
        """Let it stop its parts; its own watchdog ends what would be left if it had to be killed."""
        if self.process.poll() is None:
            before = signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # a second Ctrl-C leaves no half of it running
            self._quiet.clear()
            try:
                self.process.terminate()
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            finally:
                signal.signal(signal.SIGINT, before)
        self._reader.join(5)


@contextmanager
def _running(settings: Settings) -> Iterator[Up]:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DemoError(
            f"the data folder {folder} cannot be made: {exc.strerror}; set DAYBREAK_DATA_DIR to one that can"
        ) from exc
    config = folder / "demo.json"
    config.touch(mode=0o600)
    config.write_text(settings.model_dump_json(), encoding="utf-8")
    state = folder / "up.json"
    state.unlink(missing_ok=True)
    up = Up(config, state)
    try:
        yield up
    finally:
        up.stop()


def _generate(up: Up) -> Mapping[str, Any]:
    """The command `daybreak generate`: its bar on stderr, what it tells on stdout.

    It is sent before there is a group, so the bar shows the wake as well.
    """
    url = up.wait_taking()
    shown = f'daybreak generate "{PROMPT}" --seed {SEED}'
    say(f"\n$ {shown}")
    command = [
        sys.executable,
        "-c",
        _DAYBREAK,
        "--url",
        url,
        "generate",
        PROMPT,
        "--json",
        "--seed",
        str(SEED),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            while client.poll() is None and up.process.poll() is None:
                time.sleep(0.05)
            if up.process.poll() is not None:
                raise up.failure()
        finally:
            if client.poll() is None:
                client.kill()  # the task goes with the system that runs it
        said = client.stdout.read() if client.stdout is not None else ""
    if client.returncode:
        raise DemoError(f"`{shown}` ended with exit code {client.returncode}: {said.strip()}")
    told: Mapping[str, Any] = json.loads(said.strip().splitlines()[-1])
    return told


def _draw(video: Path, sheet: Path) -> None:
    from daybreak_server.workloads.video.pipeline.encode import contact_sheet

    contact_sheet(video, sheet)


def _next(video: Path, sheet: Path, told: Mapping[str, Any], *, taken_s: float, total_s: float) -> None:
    """What was done, how long it took, what to try."""
    phases = told.get("phases_s", {})
    spent = [("start-up", taken_s), *((str(name), float(seconds)) for name, seconds in phases.items())]
    say("\nwhat it did and how long it took")
    for name, seconds in [*spent, ("all of it", total_s)]:
        say(f"  {name:<16}{seconds:7.1f} s")
    say(f"\nthe video          {video}\nits contact sheet  {sheet}")
    say(
        "\nwhat to try next\n"
        "  make up                                                    the same without an end\n"
        '  .venv/bin/daybreak generate "a green triangle moving up"   in another terminal\n'
        "  .venv/bin/daybreakd dev                                    the light one: no Ray, no torch\n"
        "  docs/00-overview.md                                        how it works"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
