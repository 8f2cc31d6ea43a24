"""Tests of the command ``daybreakd``: help, settings, programs, exit codes, and the generated reference pages."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import typer

from daybreak_server.cli import settings
from daybreak_server.cli.run import Program, finish
from daybreak_server.settings.tree import Settings

from .conftest import in_new_process

if TYPE_CHECKING:
    from .conftest import Daybreakd

COMMANDS = ["up", "dev", "demo", "demo-serve", "serve", "gateway", "settings", "routing", "doctor", "models"]
REPOSITORY = Path(__file__).parents[4]


def test_help_imports_no_large_package() -> None:
    """``--help`` imports neither Ray, torch nor other large packages, and takes less than a second of CPU time."""
    result = in_new_process(
        "import sys, time\n"
        "from daybreak_server.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'boto3', 'fastapi', 'redis', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time(), file=sys.stderr)\n"
    )
    heavy, _, seconds = result.err.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < 1.0  # 0.25 on an idle machine; CPU time grows on a busy one


def test_help_shows_examples_settings_and_exit_codes(daybreakd: Daybreakd) -> None:
    result = daybreakd("--help")
    assert result.code == 0
    for words in (
        "daybreakd up --config daybreak.yaml",
        "DAYBREAK_HTTP__PORT=9000 daybreakd up",
        "DAYBREAK_REDIS__URL",
        "Exit codes: 0 success",
        "docs/00-overview.md",
        *COMMANDS,
    ):
        assert words in result.out
    assert max(map(len, result.out.splitlines())) <= 100
    assert (REPOSITORY / "docs" / "00-overview.md").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "models verify"])
def test_every_command_has_help(daybreakd: Daybreakd, command: str) -> None:
    """The command's line in the list of commands is not truncated."""
    assert daybreakd(*command.split(), "-h").code == 0
    line = next(
        line for line in daybreakd("--help").out.splitlines() if line.split()[:1] == command.split()[:1]
    )
    assert line.endswith(".")


def test_the_version_is_that_of_the_installed_distribution(daybreakd: Daybreakd) -> None:
    assert daybreakd("--version").out == f"daybreakd {version('daybreak-server')}\n"


def test_wrong_usage_exits_with_code_2(daybreakd: Daybreakd) -> None:
    """An unknown command and an unknown option are wrong usage."""
    assert daybreakd("upp").code == 2
    assert daybreakd("up", "--nonsense").code == 2


def test_settings_are_shown_with_their_documentation(daybreakd: Daybreakd) -> None:
    """Each setting is shown with its variable, type, default, value and description. Changed settings are marked."""
    result = daybreakd("settings", DAYBREAK_HTTP__PORT="9000", DAYBREAK_POOLS__ECHO__RANKS="2")
    assert result.code == 0
    lines = result.out.splitlines()
    row = lines.index("* http.port = 9000")
    assert lines[row + 1].strip() == "DAYBREAK_HTTP__PORT · integer · default 8000"
    assert "any free port" in lines[row + 2]
    assert "* pools.echo.ranks = 2" in lines
    assert "  pools.echo.groups = 1" in lines
    assert "  artifacts.s3.presign = true" in lines
    unchanged = daybreakd("settings").out
    assert not [line for line in unchanged.splitlines() if line.startswith("* ") and " = " in line]


def test_settings_as_json_have_the_same_fields_by_name(daybreakd: Daybreakd) -> None:
    """Every setting has a description."""
    rows = json.loads(daybreakd("settings", "--json", DAYBREAK_TENANTS__A__WEIGHT="3").out)
    assert rows["http.port"] == {
        "variable": "DAYBREAK_HTTP__PORT",
        "type": "integer",
        "default": 8000,
        "value": 8000,
        "changed": False,
        "description": "Port to listen on. 0 selects any free port.",
    }
    assert rows["tenants.a.weight"]["value"] == 3
    assert [name for name, row in rows.items() if not row["description"]] == []


def test_a_default_that_depends_on_other_settings_names_them(daybreakd: Daybreakd) -> None:
    """By default a pool runs the workload that has the pool's name, so this workload is not marked as changed."""
    pools = {"DAYBREAK_POOLS__ECHO__RANKS": "1", "DAYBREAK_POOLS__OTHER__WORKLOAD": "echo"}
    rows = json.loads(daybreakd("settings", "--json", **pools).out)
    shown = {name: (row["default"], row["value"], row["changed"]) for name, row in rows.items()}
    assert shown["pools.echo.workload"] == ("echo", "echo", False)
    assert shown["pools.other.workload"] == ("other", "echo", True)
    assert (shown["model_cache"][0], shown["model_cache"][2]) == ("<data_dir>/models", False)
    assert (shown["artifacts.url"][0], shown["artifacts.url"][2]) == ("file:<data_dir>/artifacts", False)


def test_settings_show_no_password(daybreakd: Daybreakd) -> None:
    """A password in a URL is masked, in text and in JSON."""
    for form in ((), ("--json",)):
        result = daybreakd("settings", *form, DAYBREAK_REDIS__URL="redis://me:hunter2@host:6379")
        assert "hunter2" not in result.out
        assert "redis://me:***@host:6379" in result.out


@pytest.mark.parametrize("command", ["settings", "doctor", "up", "dev", "demo", "serve", "gateway"])
def test_each_wrong_setting_gets_a_line_and_the_command_exits_with_code_2(
    daybreakd: Daybreakd, command: str
) -> None:
    """The command exits before it starts anything, and prints no traceback."""
    result = daybreakd(command, DAYBREAK_HTTP__PROT="1", DAYBREAK_HTTP__PORT="many")
    assert result.code == 2
    assert result.out == ""
    first, second, *_ = result.err.splitlines()
    assert first.startswith("daybreakd: DAYBREAK_HTTP__PROT: there is no such setting; did you mean")
    assert second.startswith("  http.port (DAYBREAK_HTTP__PORT): ")
    assert "Traceback" not in result.err


def test_config_is_accepted_before_and_after_the_command(daybreakd: Daybreakd, tmp_path: Path) -> None:
    """An environment variable overrides the file."""
    config = tmp_path / "daybreak.yaml"
    config.write_text("http: {port: 1234}\n")
    for arguments in (("--config", str(config), "settings"), ("settings", "-c", str(config))):
        assert "* http.port = 1234" in daybreakd(*arguments).out
        assert "* http.port = 99" in daybreakd(*arguments, DAYBREAK_HTTP__PORT="99").out
    missing = daybreakd("settings", "--config", "none.yaml")
    assert missing.code == 2
    assert "none.yaml: cannot be read" in missing.err


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            "fast",
            "there is no strategy 'fast'; use iteration, mixed, request, single, or package.module:Class",
        ),
        (
            "nowhere:Fast",
            "pool speech: the strategy 'nowhere:Fast' cannot be imported: No module named 'nowhere'; correct "
            "DAYBREAK_POOLS__SPEECH__SESSIONS__STRATEGY (your own modules must be on PYTHONPATH)",
        ),
    ],
)
def test_a_strategy_that_cannot_be_used_stops_the_command(
    daybreakd: Daybreakd, strategy: str, message: str
) -> None:
    """The command stops before anything starts."""
    environ = {
        "DAYBREAK_POOLS__SPEECH__WORKLOAD": "simulated-speech",
        "DAYBREAK_POOLS__SPEECH__SESSIONS__STRATEGY": strategy,
    }
    result = daybreakd("dev", **environ)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ("speech", {"cache_mb": -1}, "pools.speech.options.cache_mb: Input should be greater than 0"),
        ("speech", {"speed": 1}, "pools.speech.options.speed: "),
        ("simulated-speech", {"block_ms": "long"}, "pools.speech.options.block_ms: "),
        ("embed", {"dtype": "int7"}, "pools.speech.options.dtype: "),
    ],
)
def test_a_wrong_option_of_a_workload_stops_the_command(
    daybreakd: Daybreakd, workload: str, options: dict[str, Any], message: str
) -> None:
    """The message names the option by its path in the settings."""
    environ = {
        "DAYBREAK_POOLS__SPEECH__WORKLOAD": workload,
        "DAYBREAK_POOLS__SPEECH__OPTIONS": json.dumps(options),
    }
    result = daybreakd("dev", **environ)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_commands_of_a_cluster_need_a_redis(daybreakd: Daybreakd, command: str) -> None:
    """Processes on several machines share one Redis, so these commands start none. The message names the setting."""
    result = daybreakd(command)
    assert result.code == 2
    assert "DAYBREAK_REDIS__URL" in result.err


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("local.up", "run_up"),
        ("local.dev", "run_dev"),
        ("local.demo_video", "run_demo"),
        ("entrypoints.ray_serve", "deploy"),
        ("entrypoints.gateway", "run_gateway"),
    ],
)
def test_each_program_has_the_settings_as_its_only_argument(module: str, function: str) -> None:
    """The functions of the commands exist, with one positional argument. The test imports none of their modules."""
    spec = importlib.util.find_spec(f"daybreak_server.{module}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    program = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    assert [argument.arg for argument in program.args.args] == ["settings"]


def test_the_exit_code_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's function gets the settings, and also the arguments in ``more``."""
    module = ModuleType("a_program")
    module.run = lambda settings, add=0: settings.http.port + add  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_program", module)
    settings = Settings.model_validate({"http": {"port": 3}})
    with pytest.raises(typer.Exit) as ended:
        finish(Program("a_program", "run", {"add": 4}), settings)
    assert ended.value.exit_code == 7


def test_a_missing_extra_is_reported_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how to install an optional package. If another module is missing, the error is raised."""

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
    """The exit code is 1, and text and JSON say what is wrong."""
    result = daybreakd("models", "verify", str(tmp_path / "none"))
    assert result.code == 1
    assert result.out.startswith("✗ error")
    assert "cannot be loaded" in result.out
    findings = json.loads(daybreakd("models", "verify", str(tmp_path), "--json").out)
    assert findings[0]["level"] == "error"
    assert "model_index.json" in findings[0]["message"]


def test_models_verify_accepts_the_built_in_model(daybreakd: Daybreakd) -> None:
    from daybreak_server.workloads.video.spec.model_folder import BUILT_IN

    if not BUILT_IN.is_dir():
        pytest.skip("the tiny model has not been trained yet (make train-tiny)")
    result = daybreakd("models", "verify", str(BUILT_IN))
    assert (result.code, result.out.splitlines()[-1]) == (0, f"✓ {BUILT_IN} can be loaded")


def reference() -> ModuleType:
    """Import tools/reference.py as a module."""
    sys.path.insert(0, str(REPOSITORY / "tools"))  # reference.py imports modules from there
    spec = importlib.util.spec_from_file_location("reference", REPOSITORY / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stale_reference_page_is_shown_as_a_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` shows the stale lines of a page, and passes after the pages are written again."""
    tool = reference()
    monkeypatch.setattr(tool, "DOCS", tmp_path)
    assert tool.main(["--check"]) == 1
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    page = tmp_path / "errors.md"
    page.write_text(page.read_text().replace("| 404 | `no_such_pool`", "| 404 | `no_such_thing`"))
    capsys.readouterr()
    assert tool.main(["--check"]) == 1
    diff = capsys.readouterr().out
    assert "-| 404 | `no_such_thing`" in diff
    assert "+| 404 | `no_such_pool`" in diff


def test_the_settings_page_is_the_same_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of settings depends neither on the working directory nor on the environment."""
    before = settings.as_markdown()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAYBREAK_HTTP__PORT", "1")
    assert settings.as_markdown() == before
    assert "`DAYBREAK_POOLS__<POOL>__RANKS`" in before
    assert "| `http.port` | `DAYBREAK_HTTP__PORT` | integer | `8000` |" in before


def test_the_text_of_each_section_of_settings_is_whole() -> None:
    """The text of a section may have several lines in the code. On the page, it ends with a full stop."""
    texts = [section.split("\n\n")[1] for section in settings.as_markdown().split("\n## ")[1:]]
    assert len(texts) > 10
    assert [text for text in texts if not text.endswith(".")] == []


def test_each_setting_of_a_section_that_may_be_unset_has_a_row() -> None:
    """The page has the defaults of such a section. ``daybreakd settings`` shows one row for a section that is unset."""
    page = settings.as_markdown()
    for variable, kind, default in [
        ("SESSIONS__MAX_SESSIONS", "integer", "1000"),
        ("BATCHING__MAX_BATCH_SIZE", "integer", "32"),
        ("BULK__MAX_LINES", "integer", "1000000"),
    ]:
        assert f"`DAYBREAK_POOLS__<POOL>__{variable}` | {kind} | `{default}` |" in page
    pools = {"speech": {"workload": "speech", "sessions": {"max_sessions": 7}}, "video": {}}
    shown = settings.as_object(Settings.model_validate({"pools": pools}))
    assert shown["pools.speech.sessions.max_sessions"]["changed"]
    assert not shown["pools.speech.sessions.strategy"]["changed"]
    assert shown["pools.video.sessions"]["type"] == "section"
    assert "pools.speech.sessions" not in shown


def test_tables_in_a_page_are_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool replaces a table between its markers and keeps the text around it. An unknown name is an error."""
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


def test_each_generated_table_is_on_some_page() -> None:
    """There are tables of keys, scripts, states, routes and error codes."""
    tool = reference()
    used = {
        match["name"] for path in tool.DOCS.glob("*.md") for match in tool.BLOCK.finditer(path.read_text())
    }
    assert used == set(tool.tables.BLOCKS)
