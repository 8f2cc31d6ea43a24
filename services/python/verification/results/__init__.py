"""Measured figures: rows with baselines and targets, saved as JSON and shown as tables.

A benchmark or a fault test fills a :class:`Report` and saves it below ``docs/figures``. ``tools/figures.py`` writes the
tables in ``docs`` from these files, so every number in such a table comes from a run.
"""

from __future__ import annotations

from verification.results.machine import machine
from verification.results.report import FOLDER, Report, Row, load

__all__ = ["FOLDER", "Report", "Row", "load", "machine"]
