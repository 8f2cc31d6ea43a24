"""A rendezvous store for groups that run without Ray."""

from __future__ import annotations

from pathlib import Path


class FolderRendezvousStore:
    """Keeps the address of a group's leader in a file, which the ranks of the group share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "leader"

    def put(self, address: str) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(address)
        temporary.rename(self._file)  # so that no reader sees half an address

    def get(self) -> str | None:
        try:
            return self._file.read_text()
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        self._file.unlink(missing_ok=True)
