"""Tests of a closed output: servers continue, and commands exit without a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.waiting import wait_until

DAYBREAKD = str(Path(sys.executable).with_name("daybreakd"))


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
    return kept | {"DAYBREAK_DATA_DIR": str(folder / "d"), "DAYBREAK_HTTP__PORT": "0"}


def test_dev_continues_when_its_reader_has_closed_the_pipe(tmp_path: Path) -> None:
    """``daybreakd dev | head -1`` must not end at the second line."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [DAYBREAKD, "dev"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as dev:
        os.close(writer)

        def ready() -> bool:
            assert dev.poll() is None, dev.communicate()
            state = tmp_path / "d" / "up.json"
            return state.exists() and json.loads(state.read_text())["ready"]

        try:
            wait_until(ready, 60, "dev to be ready")
        finally:
            dev.send_signal(signal.SIGTERM)
        _, errors = dev.communicate(timeout=60)
    assert dev.returncode == 0, errors
    assert "BrokenPipe" not in errors


@pytest.mark.parametrize(
    ("shell", "code"), [("> /dev/full", 1), (">&-", 0), ("| sleep 0", None), ("2>&1 | sleep 0", None)]
)
def test_the_settings_command_prints_no_traceback_without_a_reader(
    tmp_path: Path, shell: str, code: int | None
) -> None:
    result = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$1" settings {shell}', "x", DAYBREAKD],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == code if code is not None else result.returncode in {0, 141}, result.stderr
    assert len(result.stderr.splitlines()) == (1 if code == 1 else 0), result.stderr
