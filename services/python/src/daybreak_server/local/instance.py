"""One running instance on this machine: its folder, its lock, the tag of its processes, and its state file.

``up``, ``dev``, ``gateway --embedded`` and ``demo-serve`` keep the files of an instance in one folder. A lock on
``up.lock`` makes sure that only one process owns the folder. All processes of the instance, except the reaper, inherit
an environment variable with the instance's tag. By this tag, the reaper (:mod:`~daybreak_server.local.reaper`) finds
these processes, and also those of an earlier run that was killed. If the path of the folder is too long, Ray's files
(and no others) are elsewhere (:meth:`Instance.ray_folder`).

``up.json`` says how to reach the instance. The file is written when the instance accepts tasks, and removed at the
end of the run (``demo-serve`` does not write it). A run that is killed leaves it behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from daybreak_server.local import reaper
from daybreak_server.settings.tree import Settings, child_environment

STATE_FILE = "up.json"
GATEWAY_MODE = "gateway"
"""The ``mode`` in the state file of ``daybreakd gateway --embedded``."""
_MAX_RAY_FOLDER = 40
"""The longest path of Ray's folder, in characters. With a longer path, the paths of Ray's sockets in that folder may
exceed the system's limit of 107 characters."""


class InstanceError(Exception):
    """The instance cannot start; the message says why and what to do."""


class Instance:
    """An instance with its data in ``folder``. It holds the lock of the folder from ``open`` to ``close``."""

    def __init__(self, folder: Path) -> None:
        """:raises InstanceError: when the folder cannot be created."""
        self.folder = folder
        self.logs = folder / "logs"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as exc:
            raise InstanceError(
                f"cannot create the data folder {folder}: {exc.strerror}; set DAYBREAK_DATA_DIR to a writable folder"
            ) from exc
        self.tag = instance_tag(folder)
        self._lock: IO[str] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    def open(self) -> list[int]:
        """Take the lock, end processes that an earlier run left, and start the reaper of this run.

        :returns: the pids of the processes that an earlier run left.
        :raises InstanceError: when another process holds the lock.
        """
        lock = (self.folder / "up.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            lock.close()
            raise InstanceError(
                f"{self.folder} is in use by process {pid}: stop it, or set DAYBREAK_DATA_DIR to another folder"
            ) from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        leftover = reaper.tagged(self.tag)
        if leftover:
            reaper.end_all(self.tag)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self.tag],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return leftover

    def close(self) -> list[int]:
        """Stop all processes of the instance and release the lock. :returns: the pids of those that did not stop."""
        survivors = reaper.end_all(self.tag)
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.write(b"done")
            self._reaper.stdin.close()
            self._reaper.wait(30)
        self.state_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()  # the lock belongs to the open file, so closing the file releases the lock
        return survivors

    @property
    def state_file(self) -> Path:
        """The file that says how to reach this instance."""
        return self.folder / STATE_FILE

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace ``up.json`` atomically."""
        write_atomically(self.state_file, json.dumps(dict(state), indent=1))

    def environment(self, name: str, extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of the process ``name``, including the tag of the process."""
        return child_environment({reaper.INSTANCE_TAG: f"{self.tag}/{name}", **(extra or {})})

    def ray_folder(self) -> Path:
        """Where Ray keeps its sessions: in the data folder, unless the paths of sockets there are too long."""
        folder = self.folder.resolve() / "ray"
        if len(str(folder)) <= _MAX_RAY_FOLDER:
            return folder
        return Path(tempfile.gettempdir()) / f"daybreak-{os.getuid()}-{self.tag[:8]}"


def instance_tag(folder: Path) -> str:
    """The tag of an instance's processes: a hash of its folder's path, so every run in this folder has the same tag."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def running_state(folder: Path) -> dict[str, Any]:
    """The content of the state file in a folder, or ``{}`` if there is none. A killed run may have left the file."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that readers see either the old text or the new. Only its owner may read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def settings_file(instance: Instance, settings: Settings) -> Path:
    """Write the settings for the processes of this instance. The file may hold credentials."""
    path = instance.folder / "settings.json"
    write_atomically(path, settings.model_dump_json())
    return path
