"""A password in a file. Kubernetes replaces the file when the file's Secret changes."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.credentials import CredentialProvider


class FilePassword(CredentialProvider):
    """Reads the file for each connection, so that a corrected or rotated password needs no restart."""

    def __init__(self, path: str, *, username: str | None = None) -> None:
        self._path = Path(path)
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The password, or user and password. :raises redis.AuthenticationError: when the file cannot be read."""
        try:
            password = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise redis.AuthenticationError(f"the password file cannot be read: {exc}") from exc
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The password, or user and password. The file is small and local, so it is read without a thread.

        :raises redis.AuthenticationError: when the file cannot be read.
        """
        return self.get_credentials()
