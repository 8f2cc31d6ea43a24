"""A password that is in a file: Kubernetes replaces the file when the Secret behind it changes."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.credentials import CredentialProvider


class FilePassword(CredentialProvider):
    """Read anew for each connection, so that a password that was wrong, or is another now, needs no restart."""

    def __init__(self, path: str, *, username: str | None = None) -> None:
        self._path = Path(path)
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Password, or user and password. :raises redis.AuthenticationError: when there is no such file."""
        try:
            password = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise redis.AuthenticationError(f"the file with it cannot be read: {exc}") from exc
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; a small file of this machine is read at once."""
        return self.get_credentials()
