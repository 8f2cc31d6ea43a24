"""Modified copies of the installed Ray, with another version or other names, for tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import ray

INSTALLED = Path(ray.__file__).parent


class Change(NamedTuple):
    """Replaces a name or a text in one file of Ray's package, wherever it occurs as a whole word."""

    file: str
    old: str
    new: str


def make_ray(folder: Path, *changes: Change, version: str = ray.__version__) -> Path:
    """A folder for PYTHONPATH with a modified Ray: links to the installed package, and copies of the changed files.

    Ray starts its programs and workers by path, so they come from this folder too.
    """
    texts: dict[str, str] = {}
    for change in (*changes, Change("_version.py", f'"{ray.__version__}"', f'"{version}"')):
        text = texts.get(change.file) or (INSTALLED / change.file).read_text()
        texts[change.file], count = re.subn(_word(change.old), change.new, text)
        assert count, change
    _link_tree(INSTALLED, folder / "ray", {Path(name): text for name, text in texts.items()})
    info = folder / f"ray-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ray\nVersion: {version}\n")
    return folder


def renamed(name: str) -> tuple[Change, ...]:
    """The changes that rename ``name`` in all of Ray's Python files that use it."""
    files = [path for path in INSTALLED.rglob("*.py") if re.search(_word(name), path.read_text())]
    return tuple(Change(str(path.relative_to(INSTALLED)), name, f"{name}_of_tomorrow") for path in files)


def _word(text: str) -> str:
    return rf"(?<!\w){re.escape(text)}(?!\w)"


def _link_tree(source: Path, target: Path, texts: dict[Path, str]) -> None:
    """Link everything in ``source``, but write the files of ``texts`` and create their parent folders.

    Each created folder gets its own ``__pycache__``. If it had a link to the installed one, Python would write the
    bytecode of the changed files into the installed package. The installed Ray would then compile its own files again.
    """
    target.mkdir(parents=True)
    replaced: dict[str, dict[Path, str]] = {}
    for path, text in texts.items():
        replaced.setdefault(path.parts[0], {})[path] = text
    for entry in source.iterdir():
        if entry.name == "__pycache__":
            (target / entry.name).mkdir()
            for compiled in entry.iterdir():
                if f"{compiled.name.partition('.')[0]}.py" not in replaced:
                    (target / entry.name / compiled.name).symlink_to(compiled)
        elif entry.name not in replaced:
            (target / entry.name).symlink_to(entry)
        elif entry.is_dir():
            below = {path.relative_to(entry.name): text for path, text in replaced[entry.name].items()}
            _link_tree(entry, target / entry.name, below)
        else:
            (target / entry.name).write_text(replaced[entry.name][Path(entry.name)])
