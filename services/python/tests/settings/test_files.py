"""A file of settings that cannot be used: what is wrong is said with its line, and no value is quoted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from daybreak_server.settings.tree import Settings, SettingsError, load_settings

SECRET = "hunter2"


def problems(config: Path) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ={})
    assert SECRET not in str(caught.value)
    return caught.value.problems


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def test_a_key_that_is_given_twice_is_refused_with_both_lines(config: Path) -> None:
    """At every depth, in every pool; YAML itself would take the last one without a word."""
    config.write_text(
        "http:\n  port: 1\nredis:\n  url: redis://a\nhttp:\n  port: 2\n"
        "pools:\n  video: {ranks: 1, groups: 1, ranks: 2}\n  echo:\n    options:\n      a: 1\n      a: 1\n"
    )
    assert problems(config) == (
        f"{config}, line 5: http is given twice, first in line 1; keep one of them",
        f"{config}, line 8: pools.video.ranks is given twice, first in line 8; keep one of them",
        f"{config}, line 12: pools.echo.options.a is given twice, first in line 11; keep one of them",
    )


def test_anchors_and_merges_may_be_used(config: Path) -> None:
    """One pool's settings for another, with one of them changed, is no key given twice."""
    config.write_text(
        "pools:\n  echo: &base\n    ranks: 2\n    workload: echo\n  other:\n    <<: *base\n    ranks: 3\n"
    )
    pools = load_settings(config, environ={}).pools
    assert (pools["echo"].ranks, pools["other"].ranks, pools["other"].workload) == (2, 3, "echo")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http:\n\tport: 1\n", "line 2, column 1: cannot be read: a tab stands where YAML needs spaces"),
        (f"redis: {{url: *{SECRET}}}", "line 1, column 14: cannot be read: there is no anchor of this name"),
        (f"redis: {{url: !{SECRET} x}}", "line 1: a tag is not known here; put a value that begins with"),
        (f"redis: {{url: &a {SECRET}, prefix: &a x, b: !!python/none x}}", "line 1"),
        ("http: {port: 1}\n---\nhttp: {port: 2}\n", "line 2, column 1: cannot be read: a second document"),
        ("1: x", "line 1: a key is not text"),
        ("http: {yes: 1}", "line 1: a key is not text"),
        ("http: {~: 1}", "line 1: a key is not text"),
        ("? [a]\n: 1", "line 1: a key is not text"),
        ("pools:\n  echo:\n    options:\n      2: x\n", "line 4: a key is not text"),
        ("pools: {echo: {options: {a: [{1: 2}]}}}", "line 1: a key is not text"),
        ("a: &a\n  b: *a\n", "line 1: an alias stands inside what it names"),
        ("http:\n  port: .inf\n", "line 2: a number is not finite"),
        ("pools: {echo: {options: {a: [.nan]}}}", "line 1: a number is not finite"),
        ("data_dir: 2026-13-45", "line 1: a value cannot be read"),
        ("x: " + "[" * 3000, "nested too deep"),
        ("x: " + "{a: " * 60 + "1" + "}" * 60, "line 1: it is nested too deep"),
        ("x: 'open", "cannot be read"),
        ("x: \x07", "control character"),
        ("- a\n- b\n", "a mapping of settings is expected, not a list"),
        ("text", "a mapping of settings is expected, not a single value"),
        ("http:\n", "http (DAYBREAK_HTTP): must be a group of settings (in"),
    ],
)
def test_what_is_no_file_of_settings_is_said_with_its_line(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    said = "\n".join(problems(config))
    assert str(config) in said
    assert words in said


def test_aliases_of_aliases_are_not_followed(config: Path) -> None:
    """Twelve lines that stand for a million million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    config.write_text("\n".join(lines))
    assert problems(config) == (f"{config}: its aliases make more than 100000 values; write fewer",)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, config: Path) -> None:
    """A folder, nothing, no right, not text, far too long."""
    (said,) = problems(tmp_path)
    assert said == f"{tmp_path}: cannot be read: Is a directory; name a YAML file that this user may read"
    assert "No such file" in problems(config)[0]
    config.write_bytes(b"http:\n  port: \xff\n")
    assert f"{config}, line 2: cannot be read: it is not UTF-8" in problems(config)[0]
    config.write_text("#" * (1 << 20) + "\n")
    assert "more than 1048576 bytes" in problems(config)[0]
    if os.geteuid() != 0:
        config.chmod(0)
        assert "Permission denied" in problems(config)[0]


def test_settings_may_come_through_a_pipe(config: Path) -> None:
    """As with `--config <(…)`: what is read is read once, and has an end."""
    os.mkfifo(config)
    writer = threading.Thread(target=config.write_text, args=("http: {port: 7}\n",))
    writer.start()
    assert load_settings(config, environ={}).http.port == 7
    writer.join()


def test_a_file_may_begin_with_the_mark_of_an_editor(config: Path) -> None:
    config.write_bytes("http: {port: 7}\n".encode("utf-8-sig"))
    assert load_settings(config, environ={}).http.port == 7
    config.write_text("# nothing\n---\n")
    assert load_settings(config, environ={}) == Settings()
