"""Other Rays for tests: the installed one, in which a version or a name is another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import ray

INSTALLED = Path(ray.__file__).parent


class Change(NamedTuple):
    """In a file of Ray's package: every occurrence of a name, or of another text, becomes something else."""

    file: str
    old: str
    new: str


def make_ray(folder: Path, *changes: Change, version: str = ray.__version__) -> Path:
    """A folder for PYTHONPATH with a Ray of its own: links to the installed one, and copies of what changes.

    Its programs and workers come from there too, since Ray starts them by their paths.
    """
    texts: dict[str, str] = {}
    for change in (*changes, Change("_version.py", f'"{ray.__version__}"', f'"{version}"')):
        text = texts.get(change.file) or (INSTALLED / change.file).read_text()
        texts[change.file], count = re.subn(_whole(change.old), change.new, text)
        assert count, change
    _lay_out(INSTALLED, folder / "ray", {Path(name): text for name, text in texts.items()})
    info = folder / f"ray-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ray\nVersion: {version}\n")
    return folder


def renamed(name: str) -> tuple[Change, ...]:
    """The changes that give a function of Ray another name wherever Python code of Ray has it."""
    files = [path for path in INSTALLED.rglob("*.py") if re.search(_whole(name), path.read_text())]
    return tuple(Change(str(path.relative_to(INSTALLED)), name, f"{name}_of_tomorrow") for path in files)


def _whole(text: str) -> str:
    return rf"(?<!\w){re.escape(text)}(?!\w)"


def _lay_out(source: Path, target: Path, texts: dict[Path, str]) -> None:
    """Links to all that is in ``source``, save for the files of ``texts`` and the folders on the way to them."""
    target.mkdir(parents=True)
    own: dict[str, dict[Path, str]] = {}
    for path, text in texts.items():
        own.setdefault(path.parts[0], {})[path] = text
    for one in source.iterdir():
        if one.name not in own:
            (target / one.name).symlink_to(one)
        elif one.is_dir():
            below = {path.relative_to(one.name): text for path, text in own[one.name].items()}
            _lay_out(one, target / one.name, below)
        else:
            (target / one.name).write_text(own[one.name][Path(one.name)])
