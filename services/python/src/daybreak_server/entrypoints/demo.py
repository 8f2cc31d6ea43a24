"""``daybreakd demo``: one prompt to an MP4 through every real part, then all that was started is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from daybreak_server.settings import PoolSettings, Settings, child_environment

PROMPT = "a red circle moving left"
SEED = 7
POOL = "video"
OUT = Path("out")
RANKS = 2
_START_S = 600.0
_STOP_S = 90.0
_UP = """
import sys, pathlib
from daybreak_server.entrypoints.instance import read_settings
from daybreak_server.entrypoints.up import run_up
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
        _say(f'Daybreak demo: "{PROMPT}", with a group of {settings.pools[POOL].ranks} ranks on this machine')
        with _running(settings) as state:
            ready_s = time.monotonic() - began
            told = _generate(str(state["url"]))
            video = Path(str(told["file"]))
            sheet = video.with_suffix(".png")
            _draw(video, sheet)
            _say(f"contact sheet: {sheet}")
        _next(video, sheet, told, ready_s=ready_s, total_s=time.monotonic() - began)
    except DemoError as exc:
        _say(f"the demo failed: {exc}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; everything that was started is stopped")
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


@contextmanager
def _running(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """`daybreakd up` in a process of its own, from ready until stopped. Yields what it tells of itself."""
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "demo.json"
    config.touch(mode=0o600)
    config.write_text(settings.model_dump_json(), encoding="utf-8")
    state = folder / "up.json"
    state.unlink(missing_ok=True)
    command = [sys.executable, "-c", _UP, str(config)]
    # A session of its own: a Ctrl-C reaches this process alone, which then stops that one in order.
    up = subprocess.Popen(command, env=child_environment({}), start_new_session=True)
    try:
        yield _wait_ready(up, state)
    finally:
        _stop(up)


def _wait_ready(up: subprocess.Popen[bytes], state: Path) -> Mapping[str, Any]:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if up.poll() is not None:
            raise DemoError(f"Daybreak did not start (exit code {up.returncode}); the reason is above")
        if state.exists():
            told: Mapping[str, Any] = json.loads(state.read_text(encoding="utf-8"))
            if told.get("ready"):
                return told
        time.sleep(0.1)
    raise DemoError(f"Daybreak was not ready after {_START_S:g} s")


def _stop(up: subprocess.Popen[bytes]) -> None:
    """Let it stop its parts; its own watchdog ends what would be left if it had to be killed."""
    if up.poll() is not None:
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C does not leave half of it running
    try:
        up.terminate()
        up.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        up.kill()
        up.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _generate(url: str) -> Mapping[str, Any]:
    """The command `daybreak generate`: its bar on stderr, what it tells on stdout."""
    OUT.mkdir(exist_ok=True)
    shown = f'daybreak generate "{PROMPT}" --seed {SEED}'
    _say(f"\n$ {shown}")
    command = [sys.executable, "-c", _DAYBREAK, "--url", url, "generate", PROMPT, "--json"]
    command += ["--seed", str(SEED), "--out", str(OUT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DemoError(f"`{shown}` ended with exit code {done.returncode}: {done.stdout.strip()}")
    told: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _draw(video: Path, sheet: Path) -> None:
    from daybreak_server.workloads.video.encode import contact_sheet

    contact_sheet(video, sheet)


def _next(video: Path, sheet: Path, told: Mapping[str, Any], *, ready_s: float, total_s: float) -> None:
    """What was done, how long it took, what to try."""
    phases = told.get("phases_s", {})
    spent = [("start-up", ready_s), *((str(name), float(seconds)) for name, seconds in phases.items())]
    _say("\nwhat it did and how long it took")
    for name, seconds in [*spent, ("all of it", total_s)]:
        _say(f"  {name:<16}{seconds:7.1f} s")
    _say(f"\nthe video          {video}\nits contact sheet  {sheet}")
    _say(
        "\nwhat to try next\n"
        "  make up                                                    the same without an end\n"
        '  .venv/bin/daybreak generate "a green triangle moving up"   in another terminal\n'
        "  .venv/bin/daybreakd dev                                    the light one: no Ray, no torch\n"
        "  docs/00-overview.md                                        how it works"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
