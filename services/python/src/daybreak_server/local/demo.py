"""``daybreakd demo``: makes an MP4 from one prompt with every real process, then stops everything it started.

The demo runs ``daybreakd up`` in a child process, with a data folder and a port of its own, and ``daybreak generate``
in another. It sends the task as soon as the gateway accepts tasks, so that the progress bar also shows the wake-up
of the group.
"""

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
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.local.up import run_up
sys.exit(run_up(read_settings(pathlib.Path(sys.argv[1]))))
"""
_DAYBREAK = "from daybreak.cli.main import run; run()"


class DemoError(Exception):
    """The demo cannot continue; the message says why."""


def run_demo(settings: Settings) -> int:
    """Start Daybreak, submit with the command ``daybreak``, show each step, stop. :returns: the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        settings = _demo_settings(settings)
        say(f'Daybreak demo: "{PROMPT}", with a group of {settings.pools[POOL].ranks} ranks on this machine')
        with _running(settings) as up:
            result = _generate(up)
            video = Path(str(result["file"]))
            sheet = video.with_suffix(".png")
            _draw(video, sheet)
        _print_summary(video, sheet, result, start_s=up.start_s, total_s=time.monotonic() - began)
    except DemoError as exc:
        say(f"the demo failed: {exc}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return 130
    return 0


def _demo_settings(settings: Settings) -> Settings:
    """The user's settings with another data folder, port and pool, so that the demo does not disturb `make up`."""
    pool = settings.pools.get(POOL, PoolSettings())
    pool = pool.model_copy(update={"groups": 1, "ranks": max(pool.ranks, RANKS)})
    folder = settings.data_dir / "demo"
    values = settings.model_dump(mode="json", exclude_unset=True)
    values |= {"data_dir": str(folder), "pools": {POOL: pool.model_dump(mode="json")}}
    values["http"] = {**values.get("http", {}), "port": 0}
    return Settings.model_validate(values)


class Up:
    """`daybreakd up` as a child process in a new session, so that Ctrl-C reaches only the demo."""

    def __init__(self, config: Path, state: Path) -> None:
        self._state = state
        self._began = time.monotonic()
        self._quiet = threading.Event()
        self._lines: list[str] = []
        self.start_s = 0.0
        """Seconds until the gateway accepted tasks."""
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

    def wait_accepting(self) -> str:
        """Wait until the gateway accepts tasks. :returns: its URL.

        From then on the output of ``up`` is not shown: the progress bar of the client says more.
        """
        end = self._began + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise self.failure()
            if self._state.exists():
                self._quiet.set()
                self.start_s = time.monotonic() - self._began
                return str(json.loads(self._state.read_text(encoding="utf-8"))["url"])
            time.sleep(0.05)
        raise DemoError(
            f"Daybreak does not accept tasks after {_START_S:g} s; see the logs in {self._state.parent / 'logs'}"
        )

    def failure(self) -> DemoError:
        """Why ``up`` has exited by itself, as it printed it."""
        self._reader.join(5)
        why = [line for line in self._lines if line.startswith("cannot start")] or self._lines[-1:]
        return DemoError(" ".join(why) or f"`daybreakd up` exited with code {self.process.returncode}")

    def stop(self) -> None:
        """Let ``up`` stop its processes. If it must be killed, its reaper ends what is left."""
        if self.process.poll() is None:
            # A second Ctrl-C must not interrupt the shutdown halfway.
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._quiet.clear()
            try:
                self.process.terminate()
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            finally:
                signal.signal(signal.SIGINT, previous)
        self._reader.join(5)


@contextmanager
def _running(settings: Settings) -> Iterator[Up]:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DemoError(
            f"cannot create the data folder {folder}: {exc.strerror}; set DAYBREAK_DATA_DIR to a writable folder"
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
    """Run `daybreak generate`, with its progress bar on stderr. :returns: its JSON result."""
    url = up.wait_accepting()
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
                client.kill()  # the demo stops the whole instance, so there is no task to cancel
        output = client.stdout.read() if client.stdout is not None else ""
    if client.returncode:
        raise DemoError(f"`{shown}` exited with code {client.returncode}: {output.strip()}")
    result: Mapping[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def _draw(video: Path, sheet: Path) -> None:
    from daybreak_server.workloads.video.pipeline.encode import contact_sheet

    contact_sheet(video, sheet)


def _print_summary(
    video: Path, sheet: Path, result: Mapping[str, Any], *, start_s: float, total_s: float
) -> None:
    """Print how long each phase took, where the files are and what to try next."""
    phases = result.get("phases_s", {})
    spent = [("start-up", start_s), *((str(name), float(seconds)) for name, seconds in phases.items())]
    say("\ntime spent")
    for name, seconds in [*spent, ("total", total_s)]:
        say(f"  {name:<16}{seconds:7.1f} s")
    say(f"\nvideo          {video}\ncontact sheet  {sheet}")
    say(
        "\nwhat to try next\n"
        "  make up                                                    the same, running until Ctrl-C\n"
        '  .venv/bin/daybreak generate "a green triangle moving up"   in another terminal\n'
        "  .venv/bin/daybreakd dev                                    light mode: no Ray, no torch\n"
        "  docs/00-overview.md                                        how it works"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
