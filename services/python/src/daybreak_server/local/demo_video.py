"""``daybreakd demo``: runs all processes of Daybreak, makes an MP4 from one prompt, and stops what it started.

The demo runs ``daybreakd up`` in a child process, with a data folder and a port of its own, and ``daybreak generate``
in another child process. The demo sends the task as soon as the gateway accepts tasks, so that the progress bar also
shows the wake.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from daybreak_server.local.child_up import DemoError, Up, running
from daybreak_server.local.console import say
from daybreak_server.settings.tree import PoolSettings, Settings

PROMPT = "a red circle moving left"
SEED = 7
POOL = "video"
RANKS = 2
_DAYBREAK = "from daybreak.cli.main import run; run()"


def run_demo(settings: Settings) -> int:
    """Start Daybreak, submit with the command ``daybreak``, show each step, stop. :returns: the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        settings = _demo_settings(settings)
        say(f'Daybreak demo: "{PROMPT}", with a group of {settings.pools[POOL].ranks} ranks on this machine')
        with running(settings) as up:
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
    """The user's settings with a separate data folder, any free port, and only the pool `video`, with one group.

    So the demo does not disturb a running `make up`. But if the settings name a Redis or a blob store,
    the demo and `make up` share it.
    """
    pool = settings.pools.get(POOL, PoolSettings())
    pool = pool.model_copy(update={"groups": 1, "ranks": max(pool.ranks, RANKS)})
    folder = settings.data_dir / "demo"
    values = settings.model_dump(mode="json", exclude_unset=True)
    values |= {"data_dir": str(folder), "pools": {POOL: pool.model_dump(mode="json")}}
    values["http"] = {**values.get("http", {}), "port": 0}
    return Settings.model_validate(values)


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
        "  .venv/bin/daybreakd dev                                    light mode: no Ray, no pools of `video`\n"
        "  docs/00-overview.md                                        how it works"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
