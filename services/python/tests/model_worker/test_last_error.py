"""The line of an engine's output that says why it ended."""

from __future__ import annotations

import pytest

from daybreak_server.model_worker.last_error import MAX_CHARS, last_error

VLLM = """\
(EngineCore_DP0 pid=4711) ERROR 11-29 04:12:01 [core.py:700] EngineCore failed to start.
(EngineCore_DP0 pid=4711) ERROR 11-29 04:12:01 [core.py:700] Traceback (most recent call last):
(EngineCore_DP0 pid=4711) ERROR 11-29 04:12:01 [core.py:700]   File "/vllm/core.py", line 691, in run_engine_core
(EngineCore_DP0 pid=4711) ERROR 11-29 04:12:01 [core.py:700] ValueError: Free memory on device (7.9/79.2 GiB) on \
startup is less than desired GPU memory utilization (0.9, 71.3 GiB).
(APIServer pid=4600) Traceback (most recent call last):
(APIServer pid=4600)   File "/usr/bin/vllm", line 10, in <module>
(APIServer pid=4600) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
[rank0]:[W1129 04:12:02.1 ProcessGroupNCCL.cpp:1479] Warning: destroy_process_group() was not called
"""
LLAMA = """\
llama_model_load: error loading model: failed to open /models/none.gguf: No such file or directory
main: exiting due to model loading error
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            VLLM,
            "ValueError: Free memory on device (7.9/79.2 GiB) on startup is less than desired GPU memory utilization",
        ),
        (
            LLAMA,
            "llama_model_load: error loading model: failed to open /models/none.gguf: No such file or directory",
        ),
        ("loading\nKilled\n\n", "Killed"),
        ("", ""),
    ],
)
def test_the_line_with_the_cause_is_preferred_to_lines_that_refer_to_it(output: str, line: str) -> None:
    assert last_error(output.splitlines(), env={}).startswith(line)


def test_an_engine_that_is_only_slow_has_no_error() -> None:
    assert last_error(["loading weights: 40%"], env={}, only_errors=True) == ""
    assert last_error(["OSError: no route", "retrying"], env={}, only_errors=True) == "OSError: no route"


def test_it_is_one_short_line_that_changes_no_terminal() -> None:
    found = last_error(["\x1b[31mValueError\x1b[0m: a\tb\x07\x9b2J \u202e" + "x" * 999], env={})
    assert found.startswith("ValueError: a b")
    assert found.isprintable()
    assert len(found) == MAX_CHARS


def test_secrets_of_the_environment_and_passwords_in_urls_are_hidden() -> None:
    env = {"HF_TOKEN": "hf_abcdef", "OPENAI_API_KEY": "hf_abcdefgh", "MY_AUTH": "yes", "HOME": "/home/user"}
    line = "OSError: 401 for hf_abcdefgh and hf_abcdef at https://me:pass@hub/home/user, yes"
    assert last_error([line], env=env) == "OSError: 401 for *** and *** at https://me:***@hub/home/user, yes"
