"""The log format of every process of Daybreak."""

from __future__ import annotations

import logging

_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log to stderr, with a timestamp on each line; a supervisor writes it to a file."""
    logging.basicConfig(level=level, format=_LOG_FORMAT, force=True)
