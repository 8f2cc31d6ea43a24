"""``daybreakd``: its help, its settings, how it starts programs and how it ends."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import typer

from daybreak_server.cli import settings
from daybreak_server.cli.run import Program, finish
from daybreak_server.settings.tree import Settings

from .conftest import in_a_process

if TYPE_CHECKING:
    from .conftest import Daybreakd

COMMANDS = ["up", "dev", "demo", "serve", "gateway", "settings", "doctor", "models"]
REPOSITORY = Path(__file__).parents[4]


def test_help_is_quick_and_light() -> None:
    """Help needs neither Ray nor torch nor any other large package, and half a second of one CPU."""
    done = in_a_process(
        "import sys, time\n"
        "from daybreak_server.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'boto3', 'fastapi', 'redis', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time(), file=sys.stderr)\n"
    )
    heavy, _, seconds = done.err.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < 1.0  # 0.25 on an idle machine; CPU seconds stretch on a busy one


def test_help_teaches(daybreakd: Daybreakd) -> None:
    """Help shows examples to copy, the settings most used, the exit codes and what comes next."""
    done = daybreakd("--help")
    assert done.code == 0
    for words in (
        "daybreakd up --config daybreak.yaml",
        "DAYBREAK_HTTP__PORT=9000 daybreakd up",
        "DAYBREAK_REDIS__URL",
        "Exit codes: 0 done",
        "docs/00-overview.md",
        *COMMANDS,
    ):
        assert words in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert (REPOSITORY / "docs" / "00-overview.md").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "models verify"])
def test_every_command_has_help(daybreakd: Daybreakd, command: str) -> None:
    """Each command says what it does, and its line in the list is not cut."""
    assert daybreakd(*command.split(), "-h").code == 0
    line = next(
        line for line in daybreakd("--help").out.splitlines() if line.split()[:1] == command.split()[:1]
    )
    assert line.endswith(".")


def test_version(daybreakd: Daybreakd) -> None:
    """The version is the distribution's."""
    assert daybreakd("--version").out == f"daybreakd {version('daybreak-server')}\n"


def test_wrong_usage_is_code_2(daybreakd: Daybreakd) -> None:
    """A command or option that is not there is told, with code 2."""
    assert daybreakd("upp").code == 2
    assert daybreakd("up", "--nonsense").code == 2


def test_settings_are_shown_documented(daybreakd: Daybreakd) -> None:
    """Every setting is there with variable, type, default, value and description; changes are marked."""
    done = daybreakd("settings", DAYBREAK_HTTP__PORT="9000", DAYBREAK_POOLS__ECHO__RANKS="2")
    assert done.code == 0
    lines = done.out.splitlines()
    at = lines.index("* http.port = 9000")
    assert lines[at + 1].strip() == "DAYBREAK_HTTP__PORT · integer · default 8000"
    assert "free one" in lines[at + 2]
    assert "* pools.echo.ranks = 2" in lines
    assert "  pools.echo.groups = 1" in lines
    assert "  artifacts.s3.presign = true" in lines
    unchanged = daybreakd("settings").out
    assert not [line for line in unchanged.splitlines() if line.startswith("* ") and " = " in line]


def test_settings_as_json(daybreakd: Daybreakd) -> None:
    """JSON has the same, by name; every setting has a description."""
    shown = json.loads(daybreakd("settings", "--json", DAYBREAK_TENANTS__A__WEIGHT="3").out)
    assert shown["http.port"] == {
        "variable": "DAYBREAK_HTTP__PORT",
        "type": "integer",
        "default": 8000,
        "value": 8000,
        "changed": False,
        "description": "Port to listen on; 0 takes a free one.",
    }
    assert shown["tenants.a.weight"]["value"] == 3
    assert [name for name, row in shown.items() if not row["description"]] == []


def test_settings_show_no_password(daybreakd: Daybreakd) -> None:
    """A password in a URL is masked, in text and in JSON."""
    for form in ((), ("--json",)):
        done = daybreakd("settings", *form, DAYBREAK_REDIS__URL="redis://me:hunter2@host:6379")
        assert "hunter2" not in done.out
        assert "redis://me:***@host:6379" in done.out


@pytest.mark.parametrize("command", ["settings", "doctor", "up", "dev", "demo", "serve", "gateway"])
def test_wrong_settings_are_lines_with_code_2(daybreakd: Daybreakd, command: str) -> None:
    """Each command ends with a readable line for each mistake, no traceback, before it starts anything."""
    done = daybreakd(command, DAYBREAK_HTTP__PROT="1", DAYBREAK_HTTP__PORT="many")
    assert done.code == 2
    assert done.out == ""
    first, second, *_ = done.err.splitlines()
    assert first.startswith("daybreakd: DAYBREAK_HTTP__PROT: there is no such setting; did you mean")
    assert second.startswith("  http.port (DAYBREAK_HTTP__PORT): ")
    assert "Traceback" not in done.err


def test_config_file(daybreakd: Daybreakd, tmp_path: Path) -> None:
    """--config is understood before and after the command; the environment wins."""
    config = tmp_path / "daybreak.yaml"
    config.write_text("http: {port: 1234}\n")
    for arguments in (("--config", str(config), "settings"), ("settings", "-c", str(config))):
        assert "* http.port = 1234" in daybreakd(*arguments).out
        assert "* http.port = 99" in daybreakd(*arguments, DAYBREAK_HTTP__PORT="99").out
    missing = daybreakd("settings", "--config", "none.yaml")
    assert missing.code == 2
    assert "none.yaml: cannot be read" in missing.err


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_processes_of_a_cluster_want_a_redis(daybreakd: Daybreakd, command: str) -> None:
    """What runs beside others cannot have an embedded Valkey, and says which setting is missing."""
    done = daybreakd(command)
    assert done.code == 2
    assert "DAYBREAK_REDIS__URL" in done.err


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("local.up", "run_up"),
        ("local.dev", "run_dev"),
        ("local.demo", "run_demo"),
        ("entrypoints.ray_serve", "deploy"),
        ("entrypoints.gateway", "run_gateway"),
    ],
)
def test_the_programs_are_there(module: str, function: str) -> None:
    """What the commands start has the name and the one argument by which it is called (read only)."""
    found = importlib.util.find_spec(f"daybreak_server.{module}")
    assert found is not None
    assert found.origin is not None
    tree = ast.parse(Path(found.origin).read_text())
    one = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    assert [argument.arg for argument in one.args.args] == ["settings"]


def test_programs_end_with_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is the program's; what is passed along reaches it."""
    module = ModuleType("a_program")
    module.run = lambda settings, add=0: settings.http.port + add  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_program", module)
    settings = Settings.model_validate({"http": {"port": 3}})
    with pytest.raises(typer.Exit) as ended:
        finish(Program("a_program", "run", {"add": 4}), settings)
    assert ended.value.exit_code == 7


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an optional package the message says how to install it; other import errors are bugs."""

    def run(settings: Settings) -> int:
        raise ModuleNotFoundError("No module named 'ray.serve'", name=settings.redis.prefix)

    module = ModuleType("a_program")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_program", module)
    with pytest.raises(SystemExit) as ended:
        finish(Program("a_program", "run"), Settings.model_validate({"redis": {"prefix": "ray.serve"}}))
    assert ended.value.code == 1
    assert "pip install 'daybreak-server[ray]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        finish(Program("a_program", "run"), Settings.model_validate({"redis": {"prefix": "ours"}}))


def test_models_verify_refuses_a_wrong_folder(daybreakd: Daybreakd, tmp_path: Path) -> None:
    """A folder that is no model is code 1 with a line that says what to do, also as JSON."""
    done = daybreakd("models", "verify", str(tmp_path / "none"))
    assert done.code == 1
    assert done.out.startswith("✗ error")
    assert "cannot be loaded" in done.out
    findings = json.loads(daybreakd("models", "verify", str(tmp_path), "--json").out)
    assert findings[0]["level"] == "error"
    assert "model_index.json" in findings[0]["message"]


def test_models_verify_likes_the_built_in_model(daybreakd: Daybreakd) -> None:
    """The model that ships is in order, and verifying it imports no torch."""
    from daybreak_server.workloads.video.spec.model_folder import BUILT_IN

    if not BUILT_IN.is_dir():
        pytest.skip("the tiny model has not been trained yet (make train-tiny)")
    done = daybreakd("models", "verify", str(BUILT_IN))
    assert (done.code, done.out.splitlines()[-1]) == (0, f"✓ {BUILT_IN} can be loaded")


def reference() -> ModuleType:
    """tools/reference.py as a module."""
    sys.path.insert(0, str(REPOSITORY / "tools"))  # where its own modules are
    found = importlib.util.spec_from_file_location("reference", REPOSITORY / "tools" / "reference.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_reference_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages are made from code: --check says what is stale with a diff, and is content after writing."""
    tool = reference()
    monkeypatch.setattr(tool, "DOCS", tmp_path)
    assert tool.main(["--check"]) == 1
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    page = tmp_path / "errors.md"
    page.write_text(page.read_text().replace("| 404 | `no_such_pool`", "| 404 | `no_such_thing`"))
    capsys.readouterr()
    assert tool.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "-| 404 | `no_such_thing`" in said
    assert "+| 404 | `no_such_pool`" in said


def test_reference_is_the_same_on_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of the settings depends on neither the working directory nor the environment."""
    before = settings.as_markdown()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYBREAK_HTTP__PORT", "1")
    assert settings.as_markdown() == before
    assert "`DAYBREAK_POOLS__<POOL>__RANKS`" in before
    assert "| `http.port` | `DAYBREAK_HTTP__PORT` | integer | `8000` |" in before


def test_a_page_has_its_tables_from_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table between its marks is kept true, what stands around it is left alone, and an unknown name is an error."""
    tool = reference()
    monkeypatch.setattr(tool, "DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- reference: keys -->\n| `t:<id>:ev` | stream |\n<!-- end -->\n\nafter\n")
    assert tool.main(["--check"]) == 1
    assert "-| `t:<id>:ev` | stream |" in capsys.readouterr().out
    assert tool.main([]) == 0
    text = page.read_text()
    assert "| `t:<id>:ev` | list |" in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\n\nafter\n")
    page.write_text("<!-- reference: nonsense -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="nonsense"):
        tool.main(["--check"])


def test_every_table_that_can_be_made_stands_in_a_page() -> None:
    """Tables of keys, scripts, states, routes and error codes: each is asked for by some page of docs."""
    tool = reference()
    asked = {
        found["name"] for path in tool.DOCS.glob("*.md") for found in tool.BLOCK.finditer(path.read_text())
    }
    assert asked == set(tool.tables.BLOCKS)
