"""Figures that a run measured: rows with their floors and targets, saved as JSON, shown as tables.

A benchmark or a fault run fills a :class:`Report` and saves it below ``docs/figures``. The pages of ``docs`` are
rendered from these files (``tools/figures.py``), so no table holds a number that no run gave.
"""

from __future__ import annotations

from verification.results.machine import machine
from verification.results.report import FOLDER, Report, Row, load

__all__ = ["FOLDER", "Report", "Row", "load", "machine"]
