"""The version of a group's results: a digest of the model's files and of the options.

One output may hold the results of two groups only if both groups have the same version.

The files of a model have gigabytes, so only samples of a large file are read. Training usually changes nearly all
weights, so the samples of two models differ even if their files have the same names, sizes and headers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from daybreak_server.workloads.text_batches.options import TextOptions

_SMALL = 1 << 20
"""A file of at most this many bytes is read as a whole."""
_SAMPLES = 64
_SAMPLE = 1 << 12
_NO_RESULTS = {"model", "model_name", "batching", "max_inputs", "cache_mb"}
"""Options that change no vector and no score."""


def version_of(folder: str, options: TextOptions) -> str:
    """A digest of the model in ``folder`` and of the options that its results depend on.

    It is the same on every machine that has the same files. The times of the files and the path of the folder do not
    matter.
    """
    digest = hashlib.sha256(options.model_dump_json(exclude=_NO_RESULTS).encode())
    root = Path(folder)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _SMALL:
                digest.update(file.read())
                continue
            for number in range(_SAMPLES):
                file.seek((size - _SAMPLE) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
