"""A model on S3, for child processes of tests. It counts the bytes that are read, and can kill its own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from daybreak_server.adapters.blobs.model_source import ModelFile, S3Model
from daybreak_server.settings.tree import S3Settings


class Model(S3Model):
    def __init__(self, url: str, endpoint: str, *, die_after: int) -> None:
        super().__init__(url, S3Settings(endpoint_url=endpoint, path_style=True))
        self.requested = 0
        self._ranges = 0
        self._die_after = die_after

    def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
        self._ranges += 1
        if self._die_after and self._ranges > self._die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.requested += length
        yield from super().read(file, start, length)
