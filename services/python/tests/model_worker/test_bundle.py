"""A worker that was copied into a folder runs with nothing but this folder, for example in the image of an engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.workers import WorkerGateway, WorkerProcess, model

MODULE = "daybreak_server.entrypoints.worker_bundle"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "agent"
    subprocess.run([sys.executable, "-m", MODULE, folder], check=True)
    return folder


def mapped_files(pid: int) -> set[Path]:
    """The programs and shared libraries that a process uses."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {Path(found[5]) for found in fields if len(found) == 6 and "x" in found[1] and found[5][0] == "/"}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_copied_worker_uses_nothing_but_its_folder(
    log_format: str, bundle: Path, gateway: WorkerGateway, start_worker: Callable[..., WorkerProcess]
) -> None:
    """Worker and guardian run no code from outside the folder, and the engine runs no code from inside the folder."""
    gateway.want("w1", model("small"))
    worker = start_worker(
        program=bundle / "bin" / "daybreakd", variables={"DAYBREAK_LOG__FORMAT": log_format}
    )
    gateway.wait_for("w1", "small", "ready")
    answer = worker.ask("small", tokens=3)
    assert answer.json()["choices"][0]["message"]["content"] == "word word word "
    (engine,) = map(int, worker.events("pid"))
    guardian = parent(engine)
    assert parent(guardian) == worker.process.pid
    for pid in (worker.process.pid, guardian):
        assert {path for path in mapped_files(pid) if bundle not in path.parents} == set()
    assert not any(bundle in path.parents for path in mapped_files(engine))
    assert gateway.registrations[0].version != "unknown"
    worker.terminate()
    assert worker.process.wait(30) == 0
    log = worker.log.read_text()
    assert "listens on" in log
    assert "Traceback" not in log, "a package is missing"


def test_the_interpreter_ignores_the_variables_of_the_image(bundle: Path) -> None:
    """The image of an engine may set ``PYTHONPATH`` and ``PYTHONHOME`` for its own Python."""
    code = "import sys, pydantic; print(pydantic.__file__); print([path for path in sys.path])"
    environ = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    found = subprocess.run(
        [bundle / "bin" / "python", "-c", code], env=environ, text=True, capture_output=True, check=True
    )
    assert "/nowhere" not in found.stdout
    assert found.stdout.startswith(str(bundle))


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    made = subprocess.run(
        [sys.executable, "-m", MODULE, tmp_path], text=True, capture_output=True, check=False
    )
    assert made.returncode == 1
    assert "is not empty" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_earlier_copy_is_replaced(bundle: Path) -> None:
    """An init container runs again in the same volume after a restart of its node, and its first run may have been cut
    off."""
    (bundle / "bin" / "daybreakd").unlink()
    subprocess.run([sys.executable, "-m", MODULE, bundle], check=True)
    subprocess.run([bundle / "bin" / "daybreakd", "--version"], check=True)
