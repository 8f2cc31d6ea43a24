"""Reads S3 keys from files, which Kubernetes replaces when their Secret changes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from botocore.credentials import CredentialProvider, Credentials, ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError
from botocore.loaders import Loader, create_loader
from botocore.session import Session, get_session

METHOD = "daybreak-files"


class FileCredentials(Credentials):  # type: ignore[misc]
    """Reads the files for each request, so that corrected or rotated keys need no restart."""

    def __init__(self, files: tuple[Path, Path]) -> None:
        super().__init__("", "", method=METHOD)
        self._files = files

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The keys that sign the current request. :raises CredentialRetrievalError: when a file cannot be read."""
        access_key_id, secret_access_key = (_read(path) for path in self._files)
        return ReadOnlyCredentials(access_key_id, secret_access_key, None)


class _FromFiles(CredentialProvider):  # type: ignore[misc]
    METHOD = METHOD
    CANONICAL_NAME = METHOD

    def __init__(self, files: tuple[Path, Path]) -> None:
        super().__init__()
        self._files = files

    def load(self) -> Credentials:
        return FileCredentials(self._files)


def session_with(files: tuple[Path, Path] | None) -> Session:
    """A session with the keys in these files; without files, with keys from boto3's usual sources."""
    session = get_session()
    session.register_component("data_loader", _definitions())
    if files is not None:
        session.get_component("credential_provider").insert_before("env", _FromFiles(files))
    return session


@cache
def _definitions() -> Loader:
    """The loader of botocore's definition of S3. All sessions share it, so only the first spends 0.1 s on loading."""
    return create_loader()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise CredentialRetrievalError(provider=METHOD, error_msg=str(exc)) from exc
