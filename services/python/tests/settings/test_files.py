"""The error about an unusable config file names the line of the problem and quotes no value."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from daybreak_server.settings.rules import config_file
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
    """The check covers every depth and every pool. YAML itself would silently take the last value."""
    config.write_text(
        "http:\n  port: 1\nredis:\n  url: redis://a\nhttp:\n  port: 2\n"
        "pools:\n  video: {ranks: 1, groups: 1, ranks: 2}\n  echo:\n    options:\n      a: 1\n      a: 1\n"
    )
    assert problems(config) == (
        f"{config}, line 5: http is given twice, first on line 1; keep one of them",
        f"{config}, line 8: pools.video.ranks is given twice, first on line 8; keep one of them",
        f"{config}, line 12: pools.echo.options.a is given twice, first on line 11; keep one of them",
    )


def test_anchors_and_merges_may_be_used(config: Path) -> None:
    """A key that is also in a merge does not count as given twice."""
    config.write_text(
        "pools:\n  echo: &base\n    ranks: 2\n    workload: echo\n  other:\n    <<: *base\n    ranks: 3\n"
    )
    pools = load_settings(config, environ={}).pools
    assert (pools["echo"].ranks, pools["other"].ranks, pools["other"].workload) == (2, 3, "echo")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http:\n\tport: 1\n", "line 2, column 1: cannot be read: a tab is used for indentation"),
        (
            f"redis: {{url: *{SECRET}}}",
            "line 1, column 14: cannot be read: there is no anchor with this name",
        ),
        (f"redis: {{url: !{SECRET} x}}", "line 1: a tag is unknown; put a value that starts with"),
        (
            "redis: {password: *}\n",
            "line 1, column 20: cannot be read: an anchor's name must be here; put a value",
        ),
        (
            "redis: {password: &!x}\n",
            "line 1, column 20: cannot be read: an anchor's name must be here; put a value",
        ),
        (
            f"redis: {{url: &a {SECRET}, prefix: &a x}}",
            "line 1, column 34: cannot be read: an anchor is defined twice; put a value",
        ),
        (f"redis: {{url: {SECRET}, b: !!python/none x}}", "line 1"),
        ("http: {port: 1}\n---\nhttp: {port: 2}\n", "line 2, column 1: cannot be read: a second document"),
        ("1: x", "line 1: a key is not text"),
        ("http: {yes: 1}", "line 1: a key is not text"),
        ("http: {~: 1}", "line 1: a key is not text"),
        ("? [a]\n: 1", "line 1: a key is not text"),
        ("pools:\n  echo:\n    options:\n      2: x\n", "line 4: a key is not text"),
        ("pools: {echo: {options: {a: [{1: 2}]}}}", "line 1: a key is not text"),
        ("a: &a\n  b: *a\n", "line 1: an alias is inside its own anchor"),
        ("http:\n  port: .inf\n", "line 2: a number is not finite"),
        ("pools: {echo: {options: {a: [.nan]}}}", "line 1: a number is not finite"),
        ("data_dir: 2026-13-45", "line 1: a value cannot be read"),
        ("x: " + "[" * 3000, "nest it less deeply"),
        ("x: " + "{a: " * 60 + "1" + "}" * 60, "line 1: it has more than 50 levels"),
        ("x: 'open", "cannot be read"),
        (
            "x: [a, b: c: d",
            "line 1, column 12: cannot be read: expected ',' or ']', but got ':'; correct the YAML",
        ),
        ("x: !!timestamp hunter2", "line 1: a value cannot be read; put text in quotes"),
        (f"x: !{SECRET}!y z", "found undefined tag handle (not shown)"),
        ("x: %hunter", "found character (not shown) that cannot start any token"),
        (r'x: "\hunter"', "found unknown escape character (not shown)"),
        ("x: \x07", "control character"),
        ("- a\n- b\n", "it must be a mapping of settings, not a list"),
        ("text", "it must be a mapping of settings, not a single value"),
        ("http:\n", "http (DAYBREAK_HTTP): must be a mapping of settings (in"),
    ],
)
def test_a_wrong_config_file_is_refused_with_the_line(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    message = "\n".join(problems(config))
    assert str(config) in message
    assert words in message


def test_aliases_that_expand_to_too_many_values_are_refused(config: Path) -> None:
    """The twelve lines of this file would expand to 10^12 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    config.write_text("\n".join(lines))
    (problem,) = problems(config)
    assert problem.startswith(f"{config}: it has more than 100000 keys and values; make it smaller")


def test_a_long_file_without_aliases_is_not_refused_for_its_aliases(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is refused because it has too many keys and values. The message says how many are allowed."""
    monkeypatch.setattr(config_file, "MAX_VALUES", 20)
    config.write_text("a: [x, x, x, x, x, x, x, x, x, x]\nb: [x, x, x, x, x, x, x, x, x]")
    (problem,) = problems(config)
    assert problem.startswith(f"{config}: it has more than 20 keys and values; make it smaller")


def test_the_levels_of_an_alias_count_where_it_is_used(config: Path) -> None:
    """An anchor that is accepted by itself is refused if an alias puts it below too many levels."""
    levels = 45
    deep, high = "[" * levels + "]" * levels, "[" * levels + "*deep" + "]" * levels
    config.write_text(f"data_dir: &deep {deep}\npools: {high}\n")
    assert "it has more than 50 levels" in problems(config)[0]


def test_a_problem_is_placed_on_the_line_of_the_value_in_force(config: Path) -> None:
    """A mapping's own key overrides a merged key, even if the merge comes later. If several merged mappings have
    the key, the first of these mappings counts."""
    config.write_text(
        "a: &a\n  x: {y: 1}\n  z: 1\nb: &b\n  x: 2\n  z: 2\nc:\n  x: {own: 3}\n  <<: [*a, *b]\nd:\n  <<: *b\n  x: 4\n"
    )
    places = {path: line for path, line in config_file.read(config).lines.items() if path[0] in {"c", "d"}}
    assert places == {
        ("c",): 7,
        ("c", "x"): 8,
        ("c", "x", "own"): 8,
        ("c", "z"): 3,
        ("d",): 10,
        ("d", "x"): 12,
        ("d", "z"): 6,
    }


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, config: Path) -> None:
    """If the path is a folder, or the file is missing, unreadable, binary or too large, the error names the path."""
    (message,) = problems(tmp_path)
    assert message == f"{tmp_path}: cannot be read: Is a directory; name a YAML file that this user may read"
    assert "No such file" in problems(config)[0]
    config.write_bytes(b"http:\n  port: \xff\n")
    assert f"{config}, line 2: cannot be read: it is not UTF-8" in problems(config)[0]
    config.write_text("#" * (1 << 20) + "\n")
    assert (
        problems(config)[0]
        == f"{config}: it is larger than 1 MiB, so it is probably not a config file; check the path"
    )
    if os.geteuid() != 0:
        config.chmod(0)
        assert "Permission denied" in problems(config)[0]


def test_settings_may_come_through_a_pipe(config: Path) -> None:
    """A pipe, as in `--config <(…)`, can be read only once."""
    os.mkfifo(config)
    writer = threading.Thread(target=config.write_text, args=("http: {port: 7}\n",))
    writer.start()
    assert load_settings(config, environ={}).http.port == 7
    writer.join()


def test_a_file_may_begin_with_a_byte_order_mark(config: Path) -> None:
    config.write_bytes("http: {port: 7}\n".encode("utf-8-sig"))
    assert load_settings(config, environ={}).http.port == 7
    config.write_text("# nothing\n---\n")
    assert load_settings(config, environ={}) == Settings()
