"""Invalid settings end every command with code 2. The error names each setting, and has no traceback or secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.cli.main import app

if TYPE_CHECKING:
    from .conftest import Daybreakd

SECRET = "hunter2"
COMMANDS = [
    str(command.name or command.callback.__name__)
    for command in app.registered_commands
    if command.callback is not None
]
ARGUMENTS = {"routing": ["answers"], "worker": ["--manager-url", "http://127.0.0.1:1"]}
"""The arguments that some commands need."""
WRONG = {
    "a password that is not escaped": ({"DAYBREAK_REDIS__URL": f"redis://:{SECRET}/x@h:6379/0"}, "%2F"),
    "an option of redis-py": (
        {"DAYBREAK_REDIS__URL": "redis://h?protocol=3"},
        "protocol; the known options are",
    ),
    "an S3 server without http": ({"DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL": "minio:9000"}, "http://host:9000"),
    "infinity": ({"DAYBREAK_POOLS__VIDEO__RETENTION_S": "inf"}, "must be a finite number"),
    "a home that is not there": ({"DAYBREAK_DATA_DIR": "~nobody-of-this-name"}, "write an absolute path"),
    "a file that is not there": ({"DAYBREAK_CONFIG": "/no/such.yaml"}, "No such file"),
    "a folder instead of a file": ({"DAYBREAK_CONFIG": "/"}, "Is a directory"),
}


def test_the_tested_commands_include_every_main_command() -> None:
    assert {"up", "dev", "demo", "serve", "gateway", "operator", "settings", "doctor"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", WRONG)
def test_invalid_settings_end_every_command_with_code_2(
    daybreakd: Daybreakd, command: str, wrong: str
) -> None:
    """The fixture ``daybreakd`` raises each exception of the command again, except an exit. So a command that would
    print a traceback fails the test."""
    environ, words = WRONG[wrong]
    result = daybreakd(command, *ARGUMENTS.get(command, ()), **environ)
    assert result.code == 2, result.out + result.err
    assert words in result.err
    assert SECRET not in result.out + result.err
    assert all(name in result.err for name in environ if name != "DAYBREAK_CONFIG")
    assert result.out == ""


@pytest.mark.parametrize("command", ["dev", "up", "demo", "gateway"])
@pytest.mark.parametrize(
    ("variable", "value"), [("DAYBREAK_ARTIFACTS__URL", "s3://bucket"), ("DAYBREAK_DATA_DIR", "/dev/null/x")]
)
def test_a_missing_profile_or_folder_ends_a_command_with_code_1_and_no_traceback(
    command: str, variable: str, value: str, tmp_path: Path
) -> None:
    """The AWS profile is missing, or the folder cannot be created. The output names the setting to correct."""
    if (command, variable) == ("gateway", "DAYBREAK_DATA_DIR"):
        value, variable = "file:///dev/null/x", "DAYBREAK_ARTIFACTS__URL"
    result = subprocess.run(
        [str(Path(sys.executable).with_name("daybreakd")), command],
        env=os.environ
        | {"DAYBREAK_POOLS__ECHO__WORKLOAD": "echo", "DAYBREAK_REDIS__URL": "redis://127.0.0.1:1"}
        | {"DAYBREAK_HTTP__PORT": "0", "AWS_PROFILE": "nobodys", "AWS_CONFIG_FILE": str(tmp_path / "none")}
        | {variable: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "Traceback" not in output
    assert "AWS_PROFILE" in output or variable in output
