"""How every process of Daybreak writes its log."""

from __future__ import annotations

import logging

_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Lines with a time, for the log file that a supervisor keeps."""
    logging.basicConfig(level=level, format=_LOG_FORMAT, force=True)
