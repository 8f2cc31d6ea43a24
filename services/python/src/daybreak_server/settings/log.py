"""The settings of the log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from daybreak_server.settings.section import Section


class LogSettings(Section):
    """The log that each process writes to its standard error."""

    format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="Format of the lines. `auto` selects `json` in a pod whose standard error is not a terminal, and "
        "`text` elsewhere, with colours on a terminal.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least severe level that is logged. Unless it is `debug`, libraries log at most warnings and "
        "errors.",
    )
    container: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether processes that Ray starts, such as ranks, write their log to the standard error of their "
        "container too, where `kubectl logs` finds it. `auto`: only in a pod. Ray's own files always contain this log.",
    )
    inputs: bool = Field(
        False,
        description="Whether the log may contain the inputs of tasks, such as prompts. If not, text that comes from an "
        "input is replaced in error messages.",
    )
