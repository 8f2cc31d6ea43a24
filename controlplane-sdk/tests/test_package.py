"""The package's dependencies, and the packages that it must not need."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

CLOSURE = {
    "annotated-types",
    "anyio",
    "h11",
    "httpcore2",
    "httpx2",
    "idna",
    "pydantic",
    "pydantic-core",
    "truststore",
    "typing-extensions",
    "typing-inspection",
}
"""Everything that `pip install daybreak-sdk` installs: seven packages for httpx2, and four more for pydantic."""


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The names of a package's transitive dependencies, from the metadata of the installed packages."""
    found: set[str] = set()
    waiting = [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        for text in requires(package) or []:
            need = Requirement(text)
            marks = [{"extra": extra} for extra in wanted or {""}]
            if need.marker and not any(need.marker.evaluate(mark) for mark in marks):
                continue
            below = need.name.lower().replace("_", "-")
            if below not in found:
                found.add(below)
                waiting.append((below, frozenset(need.extras)))
    return found


def test_the_base_needs_only_the_listed_packages() -> None:
    """A new dependency fails this test until somebody adds it to `CLOSURE` on purpose."""
    assert closure("daybreak-sdk") == CLOSURE
    assert len(CLOSURE) <= 11


def test_the_client_needs_neither_typer_nor_rich_nor_the_server() -> None:
    """With httpx2 and pydantic alone, everything works except the extras, whose errors say what to install."""
    code = """
import sys

BLOCKED = {"typer", "rich", "click", "daybreak_server", "fastapi", "starlette", "uvicorn"}
BLOCKED |= {"redis", "pytest"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Blocker())
import asyncio, pkgutil, importlib, daybreak
for module in pkgutil.walk_packages(daybreak.__path__, "daybreak."):
    if module.name.split(".")[1] not in {"cli", "event_relay", "testing"}:
        importlib.import_module(module.name)
for name, extra in (("event_relay", "relay"), ("testing", "testing")):
    try:
        importlib.import_module(f"daybreak.{name}")
    except ImportError as exc:
        assert f"pip install 'daybreak-sdk[{extra}]'" in str(exc), exc
    else:
        raise AssertionError(extra)
daybreak.Client().close()
asyncio.run(daybreak.AsyncClient().close())
third = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(",".join(sorted(name for name in third if not name.startswith("_"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.replace("_", "-") for name in done.stdout.strip().split(",")}
    installed_by_others = {
        "sitecustomize",
        "distutils-hack",
        "sniffio",
    }  # anyio imports sniffio where it is installed
    assert loaded - CLOSURE - {"daybreak", "typing-extensions"} <= installed_by_others


def test_the_wire_types_load_no_http_client() -> None:
    """The server imports `daybreak.wire`, which must load pydantic only."""
    code = "import sys, daybreak.wire; print([n for n in ('httpx2', 'anyio', 'ssl') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
